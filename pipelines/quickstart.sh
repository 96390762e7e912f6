#!/bin/sh
# Sets up what is missing, builds Windlass and runs the quickstart pipeline.
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh
need_rust
cargo build --locked --package windlass
exec cargo run --locked --quiet --package windlass -- run pipelines/quickstart.yaml "$@"
