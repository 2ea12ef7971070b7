#!/usr/bin/env bash
# Build pg_sync and install it into the folders of PostgreSQL's server.
#
#   bash sql/install_postgres.sh [PG_CONFIG]      /usr/bin/pg_config by default, which is Debian's PostgreSQL 15
#
# As root on Debian or Ubuntu it installs the server, its headers and libclang when they are missing. pgrx's cargo command goes below
# target/, and what it knows of the servers.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PG_CONFIG=${1:-/usr/bin/pg_config} PG_VERSION=15 PGRX_VERSION=0.18.1 TOOLS=$PWD/target/tools

packages=(libclang-dev) missing=()
[ "$PG_CONFIG" != /usr/bin/pg_config ] || packages+=(postgresql-$PG_VERSION postgresql-server-dev-$PG_VERSION)
for package in "${packages[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "please install: ${missing[*]}" >&2; exit 2; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
export PATH="$TOOLS/bin:$PATH" PGRX_HOME=$PWD/target/pgrx
cargo pgrx --version 2>/dev/null | grep -q " $PGRX_VERSION\$" ||
    cargo install cargo-pgrx --quiet --locked --version $PGRX_VERSION --root "$TOOLS"
# pg15 and the like: the version of the server as pgrx and our features name it.
version=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/pg\1/')
mkdir -p "$PGRX_HOME"
grep -qsxF "$version = \"$PG_CONFIG\"" "$PGRX_HOME/config.toml" || cargo pgrx init "--$version" "$PG_CONFIG"
cd pg_sync
cargo pgrx install --release --no-default-features --features "$version" --pg-config "$PG_CONFIG"
