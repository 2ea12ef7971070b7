"""The gateway as a process of its own, before a SQLite file or a PostgreSQL database."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

import httpx

PROGRAM = os.environ.get("SYNC_API", str(pathlib.Path(__file__).resolve().parent.parent / "target/release/sync_api"))
# Seconds.
PATIENCE = 30
LOOPBACK = "127.0.0.1:0"


def postgres_url(replica, user="postgres", database=None, more=""):
    """How the gateway, or a client, reaches the database of a `PgReplica` by its server's socket."""
    port = getattr(replica.cluster, "port", 5432)
    return f"postgres://{user}@/{database or replica.database}?host={replica.cluster.folder}&port={port}{more}"


def run(*arguments, check=True):
    """Run the program to its end; what it printed."""
    done = subprocess.run([PROGRAM, *map(str, arguments)], text=True, capture_output=True, timeout=PATIENCE, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{arguments}: {done.stderr}")
    return done


def add_token(database, name, *options):
    """A new token; `options` as of `sync_api token add`."""
    return run("--database", database, "token", "add", name, *options).stdout.strip()


class Gateway:
    """A running gateway, without a limit of requests unless `options`, which go to its command line, have one."""

    def __init__(self, database, *options, token=None, listen=LOOPBACK, environment=None):
        self.database, self.options, self.environment = str(database), [str(option) for option in options], environment or {}
        if "--requests-per-minute" not in self.options:
            self.options += ["--requests-per-minute", "0"]
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.listen = listen
        self.logs = tempfile.NamedTemporaryFile("w+", prefix="sync_api", suffix=".log")
        self.start()

    def start(self):
        """Start it, on the port it had before when it is started again."""
        self.logs.truncate(0)
        self.logs.seek(0)
        self.process = subprocess.Popen(
            [PROGRAM, "--database", self.database, "--listen", self.listen, *self.options],
            stdout=self.logs, stderr=self.logs, env={**os.environ, **self.environment},
        )
        scheme = "https" if "--tls-cert" in self.options else "http"
        self.listen = self.wait_for(r'address"?[=:]"?([0-9.]+:[0-9]+)')
        self.url = f"{scheme}://{self.listen}"

    @property
    def port(self):
        return int(self.listen.rsplit(":", 1)[1])

    def wait_for(self, pattern):
        """Until the log has this; its first group."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = re.search(pattern, self.log())
            if found:
                return found.group(1) if found.groups() else found.group(0)
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the gateway did not say {pattern!r}:\n{self.log()}")

    def log(self):
        return pathlib.Path(self.logs.name).read_text(encoding="utf-8")

    def client(self, token=None, **options):
        """An HTTP client of this gateway."""
        headers = {"Authorization": f"Bearer {token}"} if token else self.headers
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, **options)

    def stop(self):
        """As an operator would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        with contextlib.suppress(FileNotFoundError):
            self.logs.close()


class Stream:
    """A live subscription, read by a thread of its own."""

    def __init__(self, gateway, query, last=None, token=None, **options):
        headers = {"Last-Event-ID": str(last)} if last is not None else {}
        self.client = gateway.client(token, **options)
        self.request = self.client.stream("GET", f"/sync/subscribe?{query}", headers=headers)
        self.response = self.request.__enter__()
        self.events, self.comments, self.raw = [], [], ""
        self.last, self.is_over = last, threading.Event()
        self.changed = threading.Condition()
        if self.response.status_code == 200:
            threading.Thread(target=self.follow, daemon=True).start()
        else:
            self.response.read()

    def follow(self):
        rest = ""
        try:
            for text in self.response.iter_text():
                *frames, rest = (rest + text).split("\n\n")
                with self.changed:
                    self.raw += text
                    for frame in frames:
                        self.take(frame)
                    self.changed.notify_all()
        except (httpx.HTTPError, httpx.StreamError, RuntimeError):
            pass
        self.is_over.set()
        with self.changed:
            self.changed.notify_all()

    def take(self, frame):
        event, data = "message", []
        for line in frame.split("\n"):
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments.append(line)
            elif name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.last = int(value)
        if data:
            self.events.append((event, "\n".join(data)))

    def changes(self):
        """The changes so far, parsed."""
        with self.changed:
            return [json.loads(data) for event, data in self.events if event == "change"]

    def wait(self, count, patience=PATIENCE):
        """Until there are so many changes; all of them."""
        end = time.monotonic() + patience
        while len(self.changes()) < count and time.monotonic() < end and not self.is_over.is_set():
            with self.changed:
                self.changed.wait(0.05)
        return self.changes()

    def close(self):
        # The thread that reads holds the connection open until it is shut down.
        with contextlib.suppress(OSError):
            self.response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(httpx.HTTPError, httpx.StreamError, RuntimeError):
            self.request.__exit__(None, None, None)
        self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
