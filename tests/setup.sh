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
