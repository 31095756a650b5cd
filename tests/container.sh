#!/usr/bin/env bash
# Proves the Dockerfile without an image registry: builds it, looks into the image, runs what is inside.
#
#   tests/container.sh          the release build, as a user gets it
#   QUICK=1 tests/container.sh  the same without optimisation: minutes instead of a quarter of an hour
#
# Needs root and the Debian packages buildah, mmdebstrap, bubblewrap and binutils. Without them it says so and succeeds,
# or fails if CI_CONTAINER=1. The official Rust image is replaced by one made here from Debian packages: the same
# distribution, with `rustup target add` done in advance by compiling the musl standard library from its packaged source.
# Crates come from wherever this machine's cargo gets them. What is slow to make is kept in CONTAINER_CACHE
# (target/container); delete that folder to start afresh.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${CONTAINER_CACHE:-$PWD/target/container}
image=localhost/amove-gateway:test
builder=localhost/rust:stand-in

main() {
    require buildah mmdebstrap bwrap setpriv readelf
    mkdir -p "$cache/tmp"
    export TMPDIR=$cache/tmp BUILDAH_ISOLATION=chroot
    work=$(mktemp -d)
    trap clean_up EXIT

    step "stand-in for the Rust image"; make_builder
    step "build";                       build_image
    step "configuration of the image";  check_configuration
    step "contents of the image";       check_contents
    step "the program in the image";    check_program
    echo "container: ok"
}

require() {
    local missing=()
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    [ "$(id -u)" = 0 ] || missing+=("root")
    [ ${#missing[@]} = 0 ] && return
    echo "SKIPPED: container.sh cannot prove the Dockerfile without: ${missing[*]}" >&2
    [ "${CI_CONTAINER:-}" = 1 ] && exit 1
    exit 0
}

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

fail() { echo "container: $*" >&2; exit 1; }

clean_up() {
    store rm --all >/dev/null 2>&1 || true
    store rmi --prune >/dev/null 2>&1 || true  # what this run has replaced
    rm -rf "$work"
}

# All images and containers stay within the cache.
store() { buildah --root "$cache/storage" --runroot "$cache/run" "$@"; }

make_builder() {
    if [ ! -f "$cache/builder.tar" ]; then
        rm -rf "$TMPDIR"/buildah-cache*  # crates compiled against the library of the stand-in before
        write_target_hook "$work/add-target"
        mmdebstrap --quiet --variant=minbase \
            --include=ca-certificates,cargo-web,gcc,libc6-dev,libunwind-14-dev,musl-tools,rust-web-src \
            --customize-hook="$work/add-target" bookworm "$work/builder.tar"
        mv "$work/builder.tar" "$cache/builder.tar"
    fi

    local container
    container=$(store from scratch)
    store add --quiet "$container" "$cache/builder.tar" / >/dev/null
    store config --env CARGO_HOME=/usr/local/cargo --env CARGO_HTTP_CAINFO=/run/host-roots.crt "$container"
    if [ "${QUICK:-}" = 1 ]; then
        store config --env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 --env CARGO_PROFILE_RELEASE_LTO=off \
            --env CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 "$container"
    fi
    store commit --quiet --rm "$container" "$builder" >/dev/null
}

# What `rustup target add` would bring: the standard library, the start-up objects of musl and an unwinder.
write_target_hook() {
    cat >"$1" <<'HOOK'
#!/bin/sh
set -eu
chroot "$1" sh -eu <<'INSIDE'
target=$(uname -m)-unknown-linux-musl
lib=$(rustc --print target-libdir --target "$target")
mkdir -p "$lib/self-contained"
rm -rf /usr/src/rustc-*/src /usr/src/rustc-*/compiler
cargo init --quiet --vcs none --name none /tmp/none

# Only the library is wanted, with what link-time optimisation needs of it; the empty program cannot be linked yet.
cd /tmp/none
RUSTFLAGS="-C embed-bitcode=yes" RUSTC_BOOTSTRAP=1 \
    cargo build --offline --release --target "$target" -Z build-std=std,panic_abort,panic_unwind \
    --config 'source.crates-io.replace-with = "packaged"' \
    --config "source.packaged.directory = '$(echo /usr/src/rustc-*/library/vendor)'" >log 2>&1 || true
cp target/"$target"/release/deps/*.rlib "$lib" || { cat log; exit 1; }

cd "$lib/self-contained"
cp /usr/lib/"$(uname -m)"-linux-musl/*crt*.o /usr/lib/"$(uname -m)"-linux-musl/libc.a .
for object in crtbegin.o crtbeginS.o crtend.o crtendS.o; do cp "$(gcc -print-file-name=$object)" .; done
cp /usr/lib/llvm-14/lib/libunwind.a .

# Debian's unwinder was compiled against glibc with fortified printing, which musl does not have.
cat >/tmp/none/fortify.c <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *file, int level, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vfprintf(file, format, arguments);
    va_end(arguments);
    return written;
}
C
musl-gcc -fPIC -O2 -c -o /tmp/none/fortify.o /tmp/none/fortify.c
ar r libunwind.a /tmp/none/fortify.o 2>/dev/null

rm -rf /tmp/none
# The tools of LLVM are not to be had here: where nothing can be counted, they are not needed either.
printf '#!/bin/sh\n[ "$1" = component ] || [ -d "$(rustc --print target-libdir --target "$3")" ]\n' >/usr/local/bin/rustup
chmod +x /usr/local/bin/rustup
apt-get purge --yes --quiet musl-tools >/dev/null
INSIDE
HOOK
    chmod +x "$1"
}

build_image() {
    local mounts=(--volume "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}:/run/host-roots.crt:ro")
    local settings=${CARGO_HOME:-$HOME/.cargo}/config.toml
    [ -f "$settings" ] && mounts+=(--volume "$settings:/usr/local/cargo/config.toml:ro")

    store bud --quiet --pull-never --format docker --build-arg BUILDER_IMAGE="$builder" \
        --build-arg VERSION=test "${mounts[@]}" --tag "$image" .
}

check_configuration() {
    configured User "65532:65532"
    configured Entrypoint "[/amove-gateway]"
    configured Cmd "[run]"
    configured Healthcheck.Test "[CMD /amove-gateway healthcheck]"
    configured StopSignal "SIGTERM"
    configured ExposedPorts "map[8080/tcp:{}]"
    configured Volumes "map[/var/lib/amove-gateway:{}]"
    configured WorkingDir "/var/lib/amove-gateway"
    configured 'Labels "org.opencontainers.image.version"' "test"
}

configured() {
    local found path=".Docker.Config.$1"
    [[ $1 == *' '* ]] && path="index .Docker.Config.${1% *} ${1#* }"
    found=$(store inspect --type image --format "{{$path}}" "$image")
    [ "$found" = "$2" ] || fail "$1 of the image is '$found', expected '$2'"
    echo "$1 = $found"
}

check_contents() {
    local container
    container=$(store from --pull-never "$image")
    root=$work/root
    cp -a "$(store mount "$container")" "$root"
    chmod 0755 "$work" "$root"  # for the user of the image

    find "$root" -type f -printf '%10s  %M %U:%G  /%P\n'
    [ "$(find "$root" -type f -printf '%P\n' | sort | paste -sd ' ')" = "amove-gateway etc/ssl/certs/ca-certificates.crt" ] ||
        fail "the image holds other files than the program and the CA roots"
    [ "$(stat -c '%U:%a' "$root/tmp")" = "root:1777" ] || fail "/tmp is not for everybody"
    [ "$(stat -c '%u:%g:%a' "$root/var/lib/amove-gateway")" = "65532:65532:700" ] || fail "the state folder is not the user's"
    [ "$(grep -c 'BEGIN CERTIFICATE' "$root/etc/ssl/certs/ca-certificates.crt")" -ge 100 ] || fail "CA roots are missing"
    if readelf --program-headers "$root/amove-gateway" | grep -q INTERP; then fail "the program is not static"; fi
}

check_program() {
    export root log=$work/log
    mkdir -p "$root/dev" "$root/proc"  # a container runtime makes these itself
    touch "$log"
    chown 65532:65532 "$log"
    export -f inside fail child_of check_version check_life
    alone bash -euo pipefail -c "check_version; check_life" || { cat "$log"; fail "the program does not work in the image"; }
}

check_version() {
    inside /amove-gateway --version | grep '^amove-gateway ' || fail "it does not say its version"
}

# The check asks where a sidecar's configuration says, which is where the sandbox listens too: healthy once it runs, gone
# when it is told to stop, though as process 1 it has no signal handlers but its own.
check_life() {
    local gateway code=0
    inside --as-pid-1 /amove-gateway sandbox --no-traffic >"$log" 2>&1 &
    gateway=$!

    for attempt in {1..60}; do
        if inside --setenv AMOVE_API_TOKEN any /amove-gateway healthcheck 2>/dev/null; then break; fi
        [ "$attempt" -lt 60 ] || fail "it is not healthy within 30 seconds"
        sleep 0.5
    done
    echo "healthy"

    kill -TERM "$(child_of "$(child_of "$gateway")")"  # the shell's child is bwrap, and its child the program
    wait "$gateway" || code=$?
    [ "$code" = 0 ] || fail "SIGTERM ended it with exit code $code"
    echo "stopped"
}

child_of() {
    local child
    read -r child _ <"/proc/$1/task/$1/children"
    echo "$child"
}

# As the image's user, in a network of its own.
alone() {
    setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps=-all bwrap --unshare-net --dev-bind / / "$@"
}

# As a container runtime would: no capability, and nothing writable but the volume and /tmp.
inside() {
    local options=()
    while [[ $1 != /* ]]; do options+=("$1"); shift; done
    bwrap --unshare-user --unshare-ipc --unshare-pid --unshare-uts --cap-drop ALL --die-with-parent --clearenv \
        --ro-bind "$root" / --proc /proc --dev /dev --tmpfs /tmp \
        --bind "$root/var/lib/amove-gateway" /var/lib/amove-gateway --chdir /var/lib/amove-gateway "${options[@]}" "$@"
}

main
