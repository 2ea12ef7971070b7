"""https:// and PostgreSQL's TLS: certificates are always verified."""

import os
import shutil
import subprocess

import pytest

from calls import PERSON_PG, sync_with
from cluster import SUPERUSER, Cluster
from pg_replica import PgReplica
from replica import DRIVER_ERRORS, sync_error


def test_https(server, client, make_gateway, certificate):
    gateway = make_gateway(server.path, "--tls-cert", certificate / "server.pem", "--tls-key", certificate / "server.key")
    server.sql("INSERT INTO Person VALUES (1, 'x', NULL)")
    for options in ({}, {"tls": {"ca": str(certificate / "stranger.pem")}}):
        with pytest.raises(DRIVER_ERRORS, match="certificate"):
            sync_with(client, gateway.url, **options)
    assert sync_with(client, gateway.url, tls={"ca": str(certificate / "server.pem")})["pulled"] == 1
    assert sync_with(client, gateway.url.replace("127.0.0.1", "localhost"), tls={"ca": str(certificate / "server.pem")})["pulled"] == 0


def test_tls_is_not_for_http(client):
    with sync_error("InvalidArgument"):
        sync_with(client, "http://127.0.0.1:1", tls={})


@pytest.fixture
def encrypted(certificate):
    """A PostgreSQL database behind TLS, and its port."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = Cluster(f"listen_addresses = '127.0.0.1'\nport = {port}\n")
    for name in ("server.pem", "server.key"):
        shutil.copy(certificate / name, cluster.data / name)
        os.chmod(cluster.data / name, 0o600)
        if os.geteuid() == 0:
            shutil.chown(cluster.data / name, SUPERUSER)
    with (cluster.data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n")
    cluster.stop()
    cluster.start()
    connect = cluster.connect
    cluster.connect = lambda *args, **options: connect(*args, port=port, **options)
    server = PgReplica(cluster)
    server.sql(PERSON_PG)
    server.track("person")
    server.url = f"postgres://postgres@127.0.0.1:{port}/{server.database}"
    yield server
    server.close()
    cluster.close()


def test_postgres(encrypted, postgres, client, certificate):
    encrypted.sql("INSERT INTO person VALUES (1, 'x', NULL)")
    trusted = {"ca": str(certificate / "server.pem")}
    # Without a word about it the server's offer is taken, and its certificate verified.
    for url in (encrypted.url, encrypted.url + "?sslmode=require"):
        with pytest.raises(DRIVER_ERRORS, match="certificate"):
            sync_with(client, url)
    for url in (encrypted.url, encrypted.url + "?sslmode=verify-full"):
        sync_with(client, url, tls=trusted)
    assert client.hash() == encrypted.hash()
    sync_with(client, encrypted.url + "?sslmode=disable")
    with pytest.raises(DRIVER_ERRORS, match="TLS"):
        sync_with(client, postgres.url, tls=trusted)
