"""A running sync_api: the gateway as a process of its own, over a SQLite file or a PostgreSQL database.

    with Gateway.start(path_or_url, "--track", "Person") as gateway:
        client.sql("SELECT sync_with(?)", gateway.url)
"""

import json
import os
import pathlib
import subprocess
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("SYNC_API", str(REPOSITORY / "target" / "release" / "sync_api"))
# Seconds until it listens, or has stopped.
PATIENCE = 60


class Gateway:
    """Made with `start`. Its log is in the file `log`."""

    def __init__(self, process, log, port, scheme, arguments):
        self.process, self.log, self.port, self.scheme, self.arguments = process, log, port, scheme, arguments

    @classmethod
    def start(cls, database, *options, port=0):
        """A gateway on a port of loopback, a free one by default, without a limit of requests."""
        arguments = ["--database", str(database), "--log-json", *map(str, options)]
        if "--requests-per-minute" not in options:
            arguments += ["--requests-per-minute", "0"]
        with tempfile.NamedTemporaryFile(prefix="sync_api-", suffix=".log", delete=False) as file:
            log = pathlib.Path(file.name)
            process = subprocess.Popen(
                [PROGRAM, "--listen", f"127.0.0.1:{port}", *arguments], stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        gateway = cls(process, log, None, "https" if "--tls-cert" in arguments else "http", (database, *options))
        try:
            gateway.port = gateway.await_port()
        except BaseException:
            gateway.kill()
            raise
        return gateway

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def await_port(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.log.read_text(encoding="utf-8").splitlines():
                if '"listening"' in line:
                    address = json.loads(line)["fields"]["address"]
                    return int(address.rsplit(":", 1)[1])
            time.sleep(0.02)
        raise RuntimeError(f"the gateway does not listen:\n{self.log.read_text(encoding='utf-8')[-4000:]}")

    def stop(self):
        """End it in peace."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.unlink(missing_ok=True)

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.log.unlink(missing_ok=True)

    def start_again(self):
        """A gateway on the same port, for the same database, after this one was stopped or killed."""
        again = Gateway.start(self.arguments[0], *self.arguments[1:], port=self.port)
        self.process, self.log = again.process, again.log

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.stop()


def add_token(database, name, *options):
    """A new token; `options` as of `sync_api token add`."""
    command = [PROGRAM, "--database", str(database), "token", "add", name, *map(str, options)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()
