#!/usr/bin/env bash
# Builds the fastest program: once with counters, then a load of requests of all kinds, then by what was counted.
#
#   bash config/release.sh                             for this machine's kind
#   bash config/release.sh x86_64-unknown-linux-musl   for that target, which has to run here
#   RUSTFLAGS="-C target-cpu=x86-64-v3" bash config/release.sh    only for newer processors
#
# The program lies in target/guided, and its path is the only line on standard output. Needs what `cargo build` needs and
# llvm-profdata (`rustup component add llvm-tools`). The profile is made anew each time: an old one still builds, but
# says less with each change of the source.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
work=$PWD/target/profile
seconds=20

main() {
    if ! can_count; then
        say "the Rust toolchain cannot count for $target: building without a profile"
        build guided
    else
        find_profdata
        rm -rf "$work" target/guided  # counts of another source would be mixed in
        mkdir -p "$work"
        say "building the program that counts"
        build counting -Cprofile-generate="$work"
        say "sending requests to it"
        train
        say "building the program"
        build guided -Cprofile-use="$work/merged.profdata"
    fi
    echo "target/guided/$target/release/amove-gateway"
}

say() { echo "release: $* (${SECONDS}s)" >&2; }

# Whether the standard library of the target has the runtime of the counters.
can_count() { compgen -G "$(rustc --print target-libdir --target "$target")/libprofiler_builtins-*" >/dev/null; }

# The tool has to know the format of the compiler's LLVM.
find_profdata() {
    local version candidate
    version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for candidate in "$(rustc --print target-libdir)/../bin/llvm-profdata" "/usr/lib/llvm-$version/bin/llvm-profdata"; do
        if [ -x "$candidate" ]; then profdata=$candidate; return; fi
    done
    say "llvm-profdata is missing: \`rustup component add llvm-tools\`, or the package llvm-$version"
    exit 1
}

# The target is always named, so that the flags are not for the programs of the build itself.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} ${2:-}" cargo build --locked --release --bin amove-gateway --target "$target" \
        --target-dir "target/$1" >&2
}

# Whoever sends the requests is not optimised and not counted.
train() {
    cat >"$work/gateway" <<PROGRAM
#!/bin/sh
LLVM_PROFILE_FILE='$work/%p.profraw' exec '$PWD/target/counting/$target/release/amove-gateway' "\$@"
PROGRAM
    chmod +x "$work/gateway"
    env -u RUSTFLAGS cargo bench --locked --profile dev --bench whole -- --train "$seconds" --binary "$work/gateway" >&2
    "$profdata" merge --output="$work/merged.profdata" "$work"/*.profraw
}

main
