# One static binary and the CA roots; no shell, no libc, no package manager.
#
#   docker build -t amove-gateway .
#   docker run --read-only --network container:APPLICATION --env-file amove.env amove-gateway
#
# The image changes no default of the program. Both listeners stay on loopback, which is right for a sidecar that shares
# its network namespace with the application. A central gateway names its file in AMOVE_GATEWAY_CONFIG, so that the health
# check reads it too, and sets `server.listen` there. It must then name its callers: without caller authentication the
# gateway refuses any other address than loopback.

ARG BUILDER_IMAGE=docker.io/library/rust:1.95-slim-bookworm

FROM ${BUILDER_IMAGE} AS builder

# Only the compiler comes from here, so the distribution's current version is the right one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates musl-tools \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$(uname -m)-unknown-linux-musl" \
    && rustup component add llvm-tools

# The recipe builds twice: by what a load of requests has shown, where the toolchain can count that.
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    program=$(bash config/release.sh "$(uname -m)-unknown-linux-musl") \
    && install -D "$program" /image/amove-gateway \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 1777 /image/tmp \
    && install -d -m 0700 /state/amove-gateway

FROM scratch

ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="amove-gateway" \
      org.opencontainers.image.description="The one door through which a company's internal services reach the Amove API" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=builder /image/ /
COPY --from=builder --chown=65532:65532 /state/ /var/lib/

USER 65532:65532
# Relative paths of the settings start here, the audit store's default among them: it has to outlive the container.
WORKDIR /var/lib/amove-gateway
VOLUME /var/lib/amove-gateway
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/amove-gateway", "healthcheck"]
ENTRYPOINT ["/amove-gateway"]
CMD ["run"]
