"""What passes is waited for and tried again within one call; what does not is said at once."""

import threading
import time

import pytest

from calls import add, sync_with
from replica import DRIVER_ERRORS


class Call(threading.Thread):
    """A `sync_with` that runs beside the test."""

    def __init__(self, replica, url, **options):
        super().__init__(daemon=True)
        self.arguments, self.options, self.answer, self.error = (replica, url), options, None, None
        self.start()

    def run(self):
        try:
            self.answer = sync_with(*self.arguments, **self.options)
        except DRIVER_ERRORS as error:
            self.error = error

    def end(self):
        self.join(60)
        assert not self.is_alive()
        if self.error:
            raise self.error
        return self.answer


def test_a_gateway_that_is_started_late_is_waited_for(server, client, make_gateway):
    add(server, 1)
    gateway = make_gateway(server.path)
    gateway.kill()
    call = Call(client, gateway.url)
    time.sleep(1)
    gateway.start()
    assert call.end()["pulled"] == 1


def test_a_gateway_that_is_killed_on_the_way(server, client, make_gateway, proxy):
    add(server, *range(1, 501))
    gateway = make_gateway(server.path)
    slow = proxy(gateway.port, delay=0.05)
    call = Call(client, f"http://127.0.0.1:{slow.port}", batchSize=10)
    for _ in range(3):
        time.sleep(0.7)
        gateway.kill()
        time.sleep(0.3)
        gateway.start()
    slow.delay = 0
    assert call.end()["pulled"] == 500
    assert client.hash() == server.hash()


@pytest.mark.parametrize("through", ["gateway", "itself"])
def test_a_postgres_server_that_is_restarted_on_the_way(cluster, postgres, client, proxy, make_gateway, through):
    add(postgres, *range(1, 501))
    if through == "gateway":
        slow = proxy(make_gateway(postgres.url).port, delay=0.05)
        url = f"http://127.0.0.1:{slow.port}"
    else:
        slow = proxy(cluster.port, delay=0.05)
        url = postgres.url.replace(str(cluster.port), str(slow.port))
    call = Call(client, url, batchSize=10)
    time.sleep(1)
    expected = postgres.hash()
    cluster.stop("fast")
    time.sleep(0.5)
    cluster.start()
    slow.delay = 0
    assert call.end()["pulled"] == 500
    assert client.hash() == expected


def test_too_many_requests_are_sent_later(server, client, make_gateway):
    add(server, *range(1, 66))
    gateway = make_gateway(server.path, "--requests-per-minute", 60)
    started = time.monotonic()
    assert sync_with(client, gateway.url, batchSize=1)["pulled"] == 65
    assert time.monotonic() - started > 3
    add(server, *range(101, 200))
    with pytest.raises(DRIVER_ERRORS, match="is busy: too many requests"):
        sync_with(client, gateway.url, batchSize=1, timeoutMs=300)


def test_a_local_writer_is_waited_for_whatever_the_connections_patience(server, client, open_replica, make_gateway):
    add(server, 1)
    gateway = make_gateway(server.path)
    client.sql("PRAGMA busy_timeout = 0")
    writer = open_replica("client")
    writer.begin()
    call = Call(client, gateway.url)
    time.sleep(0.5)
    assert call.is_alive()
    writer.sql("COMMIT")
    assert call.end()["pulled"] == 1
