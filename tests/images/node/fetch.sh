#!/usr/bin/env bash
# Fetches npm and yarn through this machine's own npm, with its registry and certificates: Debian's nodejs brings neither.
set -euo pipefail
cd "$1"

# The last npm that runs on Node.js 18, and the yarn ("berry") that the frontend's package.json names.
readonly NPM=npm@10.9.9
readonly YARN=@yarnpkg/cli-dist@4.18.1

command -v npm >/dev/null || {
    echo "npm is needed on this machine to make node:18-alpine (help: install Node.js 18 or later)" >&2
    exit 1
}
fetch() { # PACKAGE FILE
    mv "$(npm pack --silent "$1")" "$2"
}
fetch "$NPM" npm.tgz
fetch "$YARN" yarn.tgz
