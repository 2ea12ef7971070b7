"""A scratch PostgreSQL cluster in a directory of its own, reached by a Unix socket; run as user postgres when this is root."""

import contextlib
import itertools
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

import psycopg

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")
SUPERUSER = "postgres"
SETTINGS = """
listen_addresses = ''
max_connections = 100
max_prepared_transactions = 20
fsync = off
"""


def bindir():
    return pathlib.Path(subprocess.check_output([PG_CONFIG, "--bindir"], text=True).strip())


class Cluster:
    """A running server. Every test makes databases of its own in it."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pgs"))
        self.numbers = itertools.count(1)
        if os.geteuid() == 0:
            shutil.chown(self.folder, SUPERUSER)
        self.run("initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        settings = SETTINGS + f"unix_socket_directories = '{self.folder}'\n"
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(settings)
        self.start()

    @property
    def data(self):
        return self.folder / "data"

    def run(self, program, *arguments):
        """Run a program of the server's; as root it refuses to run."""
        command = [str(bindir() / program), *map(str, arguments)]
        if os.geteuid() == 0:
            pwd.getpwnam(SUPERUSER)
            command = ["runuser", "-u", SUPERUSER, "--", *command]
        return subprocess.run(command, check=True, cwd=self.folder, text=True, capture_output=True).stdout

    def start(self):
        # Its output goes to the log: whoever waits for the end of a pipe would wait for the server's.
        self.run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "start")

    def stop(self, mode="fast"):
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def log(self):
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def close(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, database="postgres", user=SUPERUSER, **options):
        return psycopg.connect(host=str(self.folder), dbname=database, user=user, autocommit=True, **options)

    def create_database(self):
        name = f"db{next(self.numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name
