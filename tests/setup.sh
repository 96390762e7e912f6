# Shared by pipelines/quickstart.sh and tests/run.sh: installs what is missing where that is possible, else says what to do.

say() { printf '%s\n' "$*" >&2; }

# The toolchain of rust-toolchain.toml, its WebAssembly target, and a C compiler for SQLite, ring and zstd.
need_rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        say "Rust is missing: install rustup (https://rustup.rs), then run this again."
        exit 69
    fi
    if command -v rustup >/dev/null 2>&1; then
        rustup target list --installed | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2
    elif [ ! -d "$(rustc --print sysroot)/lib/rustlib/wasm32-wasip2" ]; then
        say "The target wasm32-wasip2 is missing: plugins are built for it. With rustup: rustup target add wasm32-wasip2"
        exit 69
    fi
    command -v cc >/dev/null 2>&1 || debian gcc libc6-dev
}

# Installs Debian packages when root on Debian; elsewhere says which are needed.
debian() {
    if [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
        say "installing: $*"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        say "missing: $* (Debian's names). Install them, or run this as root on Debian."
        exit 69
    fi
}

# Vault's part is played by RustyVault's server, which is built from source: minutes, so it goes on while other things are checked.
# It is kept under the target directory.
rvault_in_the_background() {
    target=$(cargo metadata --locked --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    tools="$target/tools"
    PATH="$tools/bin:$PATH"
    export PATH
    rvault_build=""
    command -v rvault >/dev/null 2>&1 && return
    { command -v pkg-config && pkg-config --exists openssl; } >/dev/null 2>&1 || debian pkg-config libssl-dev
    say "building rvault in the background (log: $tools/rvault.log)"
    mkdir -p "$tools"
    CARGO_TARGET_DIR="$tools/build" CARGO_PROFILE_DEV_DEBUG=0 nice \
        cargo install --quiet --locked --debug rusty_vault --version 0.2.1 --root "$tools" >"$tools/rvault.log" 2>&1 &
    rvault_build=$!
    # Nothing is left running when a check before the tests fails.
    trap 'kill "$rvault_build" 2>/dev/null || true' EXIT
}

wait_for_rvault() {
    [ -n "$rvault_build" ] || return 0
    say "== waiting for rvault"
    began=$(date +%s)
    if ! wait "$rvault_build"; then
        cat "$tools/rvault.log" >&2
        exit 69
    fi
    trap - EXIT
    rm -rf "$tools/build"
    say "rvault is there after $(($(date +%s) - began)) s of waiting"
}

# Ends the container engine of tests/src/engine.rs, where one of them has started it.
end_test_engine() {
    pid=$(cat /run/windlass-test-engine/pid 2>/dev/null) || return 0
    # Its number may be somebody else's by now.
    case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in
        *windlass-test-engine*) kill "$pid" ;;
    esac
}
