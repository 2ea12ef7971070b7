"""A scratch PostgreSQL cluster in a directory of its own, reached by a Unix socket; run as user postgres when this is root."""

import contextlib
import itertools
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")
SUPERUSER = "postgres"
# How often `start_again` tries, ten times a second.
PATIENCE = 300
SETTINGS = """
listen_addresses = ''
max_connections = 100
max_prepared_transactions = 20
fsync = off
"""


def bindir():
    return pathlib.Path(subprocess.check_output([PG_CONFIG, "--bindir"], text=True).strip())


def is_built_with(library):
    """Was the server built with this library, such as `libxml` or `icu`?"""
    configuration = subprocess.check_output([PG_CONFIG, "--configure"], text=True)
    return f"--with-{library}" in configuration


class Cluster:
    """A running server. Every test makes databases of its own in it. `settings` are lines for postgresql.conf."""

    def __init__(self, settings=""):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pgs"))
        self.numbers = itertools.count(1)
        if os.geteuid() == 0:
            shutil.chown(self.folder, SUPERUSER)
        self.run("initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        settings = SETTINGS + settings + f"unix_socket_directories = '{self.folder}'\n"
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

    def kill(self):
        """SIGKILL of the postmaster: nobody tells its backends, which go on until they notice."""
        os.kill(int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0]), signal.SIGKILL)

    def wait_for_crash(self, witness):
        """Until this session is ended: the postmaster notices that a backend was killed a little later, and ends every other session."""
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                witness.execute("SELECT pg_sleep(0.001)")

    def start_again(self):
        """Start, or wait for the start, after a crash: as long as a backend of before lives, the server refuses."""
        for _ in range(PATIENCE):
            with contextlib.suppress(subprocess.CalledProcessError, psycopg.OperationalError):
                if not self.is_running():
                    self.start()
                self.connect().close()
                return
            time.sleep(0.1)
        raise RuntimeError(f"the server does not come up again:\n{self.log()[-4000:]}")

    def is_running(self):
        try:
            self.run("pg_ctl", "-D", self.data, "status")
        except subprocess.CalledProcessError:
            return False
        return True

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


class Standby(Cluster):
    """A streaming replica of a running server; started."""

    def __init__(self, primary):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pgs"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, SUPERUSER)
        self.run("pg_basebackup", "-h", primary.folder, "-U", SUPERUSER, "-D", self.data, "-R", "-c", "fast", "--no-sync")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"unix_socket_directories = '{self.folder}'\n")
        self.start()

    def catch_up(self, primary):
        """Wait until it has replayed all that the primary has written so far."""
        with primary.connect() as connection:
            [written] = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        with self.connect() as connection:
            for _ in range(PATIENCE):
                if connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]).fetchone()[0]:
                    return
                time.sleep(0.1)
        raise RuntimeError(f"the standby stays behind:\n{self.log()[-4000:]}")

    def promote(self):
        self.run("pg_ctl", "-D", self.data, "-w", "promote")
