#!/bin/sh
# Sets up what the tests need and runs all of them: formatting, lints, documentation, unit, sandbox and end-to-end tests.
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh
need_rust

# The real parts: openssl makes the encrypted files that secrets are read from, python3 prints secrets in many forms, skopeo
# judges images and docker-compose resolved compose files, PostgreSQL is migrated, rvault is asked for secrets, moto (which the tests
# install themselves) for objects. strace lets the disk
# fail, and libfaketime the clock jump. Containers run on a Docker Engine that the tests start themselves where none answers; busybox and
# debootstrap make its images, docker-registry keeps them.
missing=""
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v python3 >/dev/null 2>&1 || missing="$missing python3"
python3 -c "import ensurepip" >/dev/null 2>&1 || missing="$missing python3-venv"
command -v docker-compose >/dev/null 2>&1 || missing="$missing docker-compose"
command -v skopeo >/dev/null 2>&1 || missing="$missing skopeo"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
[ -x /usr/lib/postgresql/15/bin/initdb ] || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql-15"
command -v dockerd >/dev/null 2>&1 || missing="$missing docker.io"
command -v docker-registry >/dev/null 2>&1 || missing="$missing docker-registry"
command -v debootstrap >/dev/null 2>&1 || missing="$missing debootstrap"
command -v ip >/dev/null 2>&1 || missing="$missing iproute2"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
[ -x /usr/bin/busybox ] || [ -x /bin/busybox ] || missing="$missing busybox-static"
# shellcheck disable=SC2086 # several words are meant
[ -z "$missing" ] || debian $missing
rvault_in_the_background

say "== formatting"
cargo fmt --all -- --check
say "== lints"
cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
say "== documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --no-deps --document-private-items
say "== tests"
command -v cargo-nextest >/dev/null 2>&1 || cargo install --quiet --locked cargo-nextest
# Output of passing tests is shown too: a test that had to be skipped says so there.
wait_for_rvault
# The engine that a test has started outlives that test, and not this script.
trap 'end_test_engine' EXIT
cargo nextest run --locked --workspace --no-fail-fast --success-output final
