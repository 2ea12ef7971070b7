"""What `sync_with(url)` cannot do is an error that says why, in the contract's kinds where the server has decided, and holds no secret."""

import json
import time

import pytest

from calls import add, sync_with
from gateway import add_token
from replica import DRIVER_ERRORS, sync_error


def test_the_contracts_errors_come_through(remote, client, make_replica):
    add(remote, *range(1, 4))
    sync_with(client, remote.url)
    remote.sql("SELECT sync_regenerate_origin()")
    with sync_error("EpochMismatch") as error:
        sync_with(client, remote.url)
    assert set(error.data) == {"expected", "actual"}


def test_a_stale_client_is_told_so(remote, client):
    add(remote, *range(1, 4))
    sync_with(client, remote.url, "sync_pull", batchSize=1)
    remote.sql("DELETE FROM Person")
    remote.sql("SELECT sync_remove_client(?)", client.origin)
    remote.sql("SELECT sync_register_client(?, ?)", "a11ce000-0000-4000-8000-000000000001", remote.state["maxVersion"])
    assert remote.value("SELECT sync_purge_tombstones()") == 3
    with sync_error("FullResyncRequired") as error:
        sync_with(client, remote.url)
    assert set(error.data) == {"clientVersion", "oldestVersion"}
    client.sql("SELECT sync_begin_resync()")
    sync_with(client, remote.url)
    assert client.rows("Person") == []


def test_a_table_that_the_server_does_not_track(remote, client):
    for replica in (client, remote):
        replica.sql("CREATE TABLE mine(id INTEGER PRIMARY KEY)")
    client.track("mine")
    client.sql("INSERT INTO mine VALUES (1)")
    with sync_error("TableNotTracked"):
        sync_with(client, remote.url)


def test_a_token(server, client, make_gateway):
    token = add_token(server.path, "phone", "--origin", client.origin)
    gateway = make_gateway(server.path)
    add(server, 1)
    for options in ({}, {"token": "wrong-and-secret"}):
        with sync_error("PermissionDenied") as error:
            sync_with(client, gateway.url, **options)
        assert "secret" not in error.message
    assert sync_with(client, gateway.url, token=token)["pulled"] == 1


def test_a_password_that_is_wrong_is_not_repeated(postgres, client):
    url = postgres.url.replace("postgres@", "nobody:hidden-password@")
    with sync_error("PermissionDenied") as error:
        sync_with(client, url)
    assert "hidden" not in error.message
    assert "hidden" not in json.dumps(client.status)


def test_a_database_without_the_extension(cluster, client):
    database = cluster.create_database()
    with sync_error("NotInitialized"):
        sync_with(client, f"postgres://postgres@127.0.0.1:{cluster.port}/{database}")


@pytest.mark.parametrize("scheme", ["http", "postgres"])
def test_a_server_that_is_not_there(client, scheme):
    started = time.monotonic()
    with pytest.raises(DRIVER_ERRORS, match="cannot be reached") as error:
        sync_with(client, f"{scheme}://127.0.0.1:1/none", timeoutMs=700)
    assert time.monotonic() - started < 5
    assert "InvalidArgument" not in str(error.value)
    note = client.status["sync"]
    assert note["phase"] == "failed" and "cannot be reached" in note["error"] and note["server"] == f"{scheme}://127.0.0.1:1/none"


def test_something_else_that_answers(client, postgres, cluster):
    with pytest.raises(DRIVER_ERRORS, match="sync: the server at"):
        sync_with(client, f"http://127.0.0.1:{cluster.port}", timeoutMs=500)


@pytest.mark.parametrize("url", [
    "http://", "http://user:pass@host/", "http://host/?a=b", "ftp://host/x", "http://ho st/", "postgres://host:port/x",
    "postgres://a:b@host/db?nonsense=1",
])
def test_a_url_that_is_none(client, url):
    with sync_error("InvalidArgument") as error:
        sync_with(client, url)
    assert "pass@" not in error.message and "a:b" not in error.message


@pytest.mark.parametrize("options", [
    {"colour": 1}, {"batchSize": 0}, {"batchSize": 10001}, {"token": 1}, {"token": "a\nb"}, {"timeoutMs": 0}, {"timeoutMs": "x"},
    {"tls": True}, {"tls": {"insecure": True}}, {"tls": {"ca": "/nowhere.pem"}},
])
def test_a_wrong_option(client, options):
    with sync_error("InvalidArgument"):
        sync_with(client, "https://127.0.0.1:1", **options)
