# What both parts of the demo use; sourced by them, at the root of the repository.

readonly ROOT=$PWD DIR=$PWD/target/demo BATCH=10000 PYTHON=/usr/bin/python3
readonly TABLES=(airlines airports planes flights weather) # parents first
readonly EXTENSION=$PWD/target/release/libsqlite_sync

step() { printf '\n%s\n' "$*"; }

# sql DATABASE STATEMENT: run it in a SQLite shell that has loaded the extension.
sql() { sqlite3 -init /dev/null -batch -bail -cmd ".load $EXTENSION" "$@"; }

# member FILE NAME: one member of a JSON object in a file.
member() { sqlite3 :memory: "SELECT json_extract(CAST(readfile('$1') AS TEXT), '$.$2')"; }

# empty_database FILE: a SQLite database with the demo's tables.
empty_database() {
    sqlite3 "$1" "PRAGMA journal_mode = WAL" >/dev/null
    sqlite3 "$1" <"$ROOT/sql/demo/schema.sql"
}

# options_of TABLE: how it is tracked.
options_of() {
    case $1 in
        airports) echo '{"conflict":"server_wins"}' ;;
        flights) echo '{"conflict":"merge"}' ;;
        *) echo '{"conflict":"last_write_wins"}' ;;
    esac
}
