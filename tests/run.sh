#!/bin/sh
# Sets up what the tests need and runs all of them: formatting, unit, sandbox and end-to-end tests.
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh
need_rust

# The real parts: openssl makes the encrypted files that secrets are read from, skopeo judges images, PostgreSQL is migrated.
missing=""
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v skopeo >/dev/null 2>&1 || missing="$missing skopeo"
[ -x /usr/lib/postgresql/15/bin/initdb ] || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql-15"
# shellcheck disable=SC2086 # several words are meant
[ -z "$missing" ] || debian $missing

say "== formatting"
cargo fmt --all -- --check
say "== tests"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
if ! cargo test --locked --workspace -- --nocapture >"$output" 2>&1; then
    cat "$output"
    exit 1
fi
grep -E '^(test result|     Running)|skipped: needs' "$output" || true
passed=$(awk '/^test result/ { sum += $4 } END { print sum + 0 }' "$output")
skipped=$(grep -c 'skipped: needs' "$output" || true)
say "$passed passed, 0 failed, $skipped skipped"
