"""Who may do what: tokens, roles, JSON Web Tokens, and what a gateway without any token answers to."""

import json
import sqlite3
import ssl
import time
import uuid

import jwt
import pytest

from gateway import Stream, add_token, postgres_url, run

ME, OTHER, RELAY = str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())
SECRET = "a secret for tests that is long enough for every algorithm in them, and longer"
JSON = {"Content-Type": "application/json"}


def token(database, name, *options):
    made = add_token(database.url, name, *options)
    assert made.startswith("sync_") and len(made) > 64
    return made


def batch(sender, origin, key="p1"):
    one = {
        "version": 1, "tableName": "Person", "pkValue": json.dumps({"Id": key}, separators=(",", ":")), "operation": "Insert",
        "payload": json.dumps({"Id": key, "Name": "x", "Email": None}, separators=(",", ":")), "origin": origin,
        "timestamp": "2026-01-15T10:30:00.000Z",
    }
    return {"kind": "push", "originId": sender, "changes": [one]}


ROUTES = [
    ("GET", "/sync/changes"), ("POST", "/sync/changes"), ("POST", "/sync/clients"), ("GET", "/sync/clients"), ("GET", "/sync/state"),
    ("GET", "/sync/status"), ("GET", "/sync/tables"), ("GET", "/sync/hash"), ("GET", "/sync/conflicts"), ("GET", "/sync/rejections"),
    ("GET", "/sync/subscribe?tableName=Person"), ("DELETE", "/sync/subscribe/x"), ("GET", "/metrics"), ("GET", "/openapi.json"),
    ("GET", "/"), ("GET", "/nothing"),
]


def test_everything_but_health_asks_for_a_token(database, make_gateway):
    good = token(database, "phone", "--origin", ME)
    gateway = make_gateway(database)
    with gateway.client() as http:
        assert http.get("/health").status_code == 200
        for method, path in ROUTES:
            for headers in [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Basic {good}"}, {"Authorization": f"Bearer {good}x"},
                            {"Authorization": "Bearer"}, {"X-Client-Id": ME}]:
                answer = http.request(method, path, headers=headers)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", (method, path, headers)
        assert "<html" in http.get("/").text, "the page itself asks for the token"
        answer = http.get("/sync/state", headers={"Authorization": f"bearer {good}"})
        assert answer.status_code == 200
    assert database.rows("Person") == []


def test_a_token_speaks_for_its_own_origin_only(database, make_gateway):
    mine = token(database, "phone", "--origin", ME)
    gateway = make_gateway(database)
    with gateway.client(mine) as http:
        for body in [batch(OTHER, OTHER), batch(OTHER, ME), batch(ME, OTHER)]:
            assert http.post("/sync/changes", json=body).status_code == 403
        # No spelling gets past: neither a second member nor a bare list.
        for text in [
            json.dumps(batch(ME, ME))[:-1] + f', "OriginId": "{OTHER}"}}',
            json.dumps([batch(OTHER, OTHER)["changes"][0]]),
            json.dumps(batch(ME, ME)).replace(f'"origin": "{ME}"', f'"origin": "{ME}", "Origin": "{OTHER}"'),
        ]:
            assert http.post("/sync/changes", content=text, headers=JSON).status_code in (400, 403)
        assert http.post("/sync/clients", json={"originId": OTHER}).status_code == 403
        assert http.get(f"/sync/changes?excludeOrigin={OTHER}").status_code == 403
        assert database.rows("Person") == [] and http.get("/sync/clients").json() == []
        assert http.post("/sync/changes", json=batch(ME, ME)).json()["applied"] == 1
        assert http.post("/sync/clients", json={"originId": ME.upper()}).status_code == 200
        assert http.get(f"/sync/changes?excludeOrigin={ME}").status_code == 200


def test_a_relay_pushes_for_others_under_its_own_name(database, make_gateway):
    relay = token(database, "boat", "--origin", RELAY, "--relay")
    with make_gateway(database).client(relay) as http:
        assert http.post("/sync/changes", json=batch(RELAY, OTHER)).json()["applied"] == 1
        assert http.post("/sync/changes", json=batch(OTHER, OTHER)).status_code == 403
        assert http.post("/sync/clients", json={"originId": OTHER}).status_code == 403


def test_a_token_without_an_origin_reads_only(database, make_gateway):
    reader = token(database, "dashboard")
    with make_gateway(database).client(reader) as http:
        assert http.get("/sync/state").status_code == 200 and http.get("/").status_code == 200
        assert http.post("/sync/changes", json=batch(ME, ME)).status_code == 403
        assert http.post("/sync/clients", json={"originId": ME}).status_code == 403
    assert database.rows("Person") == []


def test_a_revoked_token_ends_at_once_and_opens_nothing(database, make_gateway):
    mine = token(database, "phone", "--origin", ME)
    with make_gateway(database).client(mine) as http:
        assert http.get("/sync/state").status_code == 200
        run("--database", database.url, "token", "revoke", "phone")
        assert http.get("/sync/state").status_code == 401
        assert http.get("/sync/state", headers={"Authorization": ""}).status_code == 401
    assert "revoked" in run("--database", database.url, "token", "list").stdout
    assert run("--database", database.url, "token", "revoke", "phone", check=False).returncode != 0


def test_a_revoked_token_ends_its_stream_also_while_it_flows(database, make_gateway):
    mine = token(database, "phone", "--origin", ME)
    gateway = make_gateway(database)
    with Stream(gateway, "tableName=Person", token=mine) as stream:
        stream.wait(1, 0.2)
        run("--database", database.url, "token", "revoke", "phone")
        end, number = time.monotonic() + 20, 0
        while not stream.is_over.is_set() and time.monotonic() < end:
            number += 1
            database.sql("""INSERT INTO "Person" VALUES (?, 'x', NULL)""", f"p{number}")
            time.sleep(0.05)
        assert stream.events[-1][0] == "failure" and json.loads(stream.events[-1][1])["kind"] == "Unauthorized"


def test_a_token_made_while_the_gateway_runs_closes_it(database, make_gateway):
    with make_gateway(database).client() as http:
        assert http.get("/sync/state").status_code == 200
        token(database, "phone", "--origin", ME)
        assert http.get("/sync/state").status_code == 401


def test_only_the_hash_of_a_token_is_stored(database):
    made = token(database, "phone", "--origin", ME)
    table = "sync_api.tokens" if database.kind == "postgres" else "_sync_api_tokens"
    [row] = database.records(f"SELECT * FROM {table}")
    assert made not in str(row) and row["name"] == "phone"
    assert run("--database", database.url, "token", "add", "phone", check=False).returncode != 0, "a name is given once"
    assert run("--database", database.url, "token", "add", "x", "--origin", "nonsense", check=False).returncode != 0


def test_without_a_token_only_this_machine_is_answered(database, make_gateway):
    refused = run("--database", database.url, "--listen", "0.0.0.0:0", check=False)
    assert refused.returncode != 0 and "no token is configured" in refused.stderr
    gateway = make_gateway(database)
    assert "no token is configured" in gateway.log() and "loopback only" in gateway.log()
    with gateway.client() as http:
        for host in ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1"]:
            assert http.get("/sync/state", headers={"Host": host}).status_code == 403, host
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:5000", "[::1]:5000"]:
            assert http.get("/sync/state", headers={"Host": host}).status_code == 200, host


def test_a_page_of_another_site_cannot_push(database, make_gateway):
    with make_gateway(database).client() as http:
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]:
            answer = http.post("/sync/changes", content=json.dumps(batch(ME, ME)), headers={"Content-Type": kind})
            assert answer.status_code == 415
        answer = http.options("/sync/changes", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
        assert "access-control-allow-origin" not in answer.headers
    assert database.rows("Person") == []


def test_so_many_requests_in_a_minute_and_no_more(database, make_gateway):
    mine, hers = token(database, "mine", "--origin", ME), token(database, "hers", "--origin", OTHER)
    gateway = make_gateway(database, "--requests-per-minute", 5)
    with gateway.client(mine) as http:
        answers = [http.get("/sync/state", headers={"X-Client-Id": str(number)}) for number in range(8)]
        assert [a.status_code for a in answers] == [200] * 5 + [429] * 3
        assert int(answers[-1].headers["retry-after"]) > 0 and answers[-1].json()["kind"] == "TooManyRequests"
    with gateway.client(hers) as http:
        assert http.get("/sync/state").status_code == 200, "each has its own"
    with gateway.client("guess") as http:
        assert [http.get("/sync/state").status_code for _ in range(7)][-1] == 429, "guessing is limited as well"


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(SECRET)
    return path


def signed(secret=SECRET, algorithm="HS256", **claims):
    return jwt.encode({"sub": ME, "exp": int(time.time()) + 60, **claims}, secret, algorithm)


def test_a_signed_token_is_taken_and_no_other(database, make_gateway, key_file):
    gateway = make_gateway(database, "--jwt-key-file", key_file)
    with gateway.client(signed()) as http:
        assert http.post("/sync/changes", json=batch(ME, ME)).json()["applied"] == 1
        assert http.post("/sync/changes", json=batch(OTHER, OTHER)).status_code == 403
    wrong = {
        "expired": signed(exp=int(time.time()) - 120), "not yet": signed(nbf=int(time.time()) + 600), "another key": signed(SECRET + "x"),
        "no end": jwt.encode({"sub": ME}, SECRET, "HS256"), "another algorithm": signed(algorithm="HS512"),
        "no signature": jwt.encode({"sub": ME, "exp": int(time.time()) + 60}, None, "none"), "no origin": signed(sub="someone"),
    }
    for why, token_ in wrong.items():
        with gateway.client(token_) as http:
            assert http.get("/sync/state").status_code == 401, why
    with gateway.client() as http:
        assert http.get("/sync/state").status_code == 401


def test_a_signed_relay_pushes_for_others(database, make_gateway, key_file):
    with make_gateway(database, "--jwt-key-file", key_file).client(signed(relay=True)) as http:
        assert http.post("/sync/changes", json=batch(ME, OTHER)).json()["applied"] == 1


def test_a_short_secret_is_refused(database, tmp_path):
    (tmp_path / "short").write_text("short")
    refused = run("--database", database.url, "--jwt-key-file", tmp_path / "short", check=False)
    assert refused.returncode != 0 and "32 bytes" in refused.stderr


# --- roles of PostgreSQL


@pytest.fixture
def guarded(make_database):
    """A table whose rows show to their owner only, and two roles that may sync."""
    database = make_database("postgres")
    database.sql('CREATE TABLE note ("id" text PRIMARY KEY, owner text, body text)')
    database.track("note")
    for role in ["alice", "bob"]:
        if not database.sql("SELECT 1 FROM pg_roles WHERE rolname = ?", role):
            database.sql(f"CREATE ROLE {role}")
        database.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON note TO {role}")
        database.sql(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}")
    database.sql("ALTER TABLE note ENABLE ROW LEVEL SECURITY")
    database.sql("CREATE POLICY own ON note USING (owner = current_user) WITH CHECK (owner = current_user)")
    return database


def test_a_role_sees_and_writes_what_it_may(guarded, make_gateway):
    tokens = {name: token(guarded, name, "--origin", origin, "--role", name) for name, origin in [("alice", ME), ("bob", OTHER)]}
    gateway = make_gateway(guarded)
    guarded.sql("""INSERT INTO note VALUES ('a1', 'alice', 'hers'), ('b1', 'bob', 'his')""")
    guarded.sql("""INSERT INTO "Person" VALUES ('p1', 'x', NULL)""")

    def seen(name):
        with gateway.client(tokens[name]) as http:
            return [json.loads(c["pkValue"])["id"] for c in http.get("/sync/changes").json()["changes"]]

    assert (seen("alice"), seen("bob")) == (["a1"], ["b1"])
    with gateway.client(tokens["alice"]) as http:
        assert http.get("/sync/subscribe?tableName=Person").status_code == 404, "she may not read that table"
        payload = '{"id":"a2","owner":"bob","body":"forged"}'
        one = {**batch(ME, ME)["changes"][0], "tableName": "note", "pkValue": '{"id":"a2"}', "payload": payload}
        answer = http.post("/sync/changes", json={"originId": ME, "changes": [one]}).json()
        assert answer["rejected"] == 1 and answer["rejections"][0]["code"] == "42501"
    assert guarded.value("SELECT count(*) FROM note WHERE id = 'a2'") == 0


def test_a_stream_shows_what_its_role_may_see(guarded, make_gateway):
    tokens = {name: token(guarded, name, "--origin", origin, "--role", name) for name, origin in [("alice", ME), ("bob", OTHER)]}
    gateway = make_gateway(guarded)
    with Stream(gateway, "tableName=note", token=tokens["alice"]) as alice, Stream(gateway, "tableName=*", token=tokens["bob"]) as bob:
        guarded.sql("""INSERT INTO note VALUES ('a1', 'alice', 'hers'), ('b1', 'bob', 'his')""")
        guarded.sql("""INSERT INTO "Person" VALUES ('p1', 'x', NULL)""")
        alice.wait(1)
        guarded.sql("DELETE FROM note WHERE id = 'a1'")
        assert [c["operation"] for c in alice.wait(2)] == ["Insert", "Delete"]
        assert [json.loads(c["pkValue"]) for c in bob.wait(1)] == [{"id": "b1"}]
        time.sleep(0.3)
        assert len(bob.changes()) == 1 and "hers" not in bob.raw and r'\"a1\"' not in bob.raw


def test_a_role_that_does_not_exist_is_no_superuser(guarded, make_gateway):
    ghost = token(guarded, "ghost", "--origin", ME, "--role", "nobody_of_this_name")
    with make_gateway(guarded).client(ghost) as http:
        assert http.get("/sync/changes").status_code >= 400
        assert http.get("/sync/state").status_code >= 400


def test_sqlite_has_no_roles(make_database):
    database = make_database("sqlite")
    refused = run("--database", database.url, "token", "add", "x", "--origin", ME, "--role", "alice", check=False)
    assert refused.returncode != 0 and "no roles" in refused.stderr


def test_nothing_secret_is_in_an_answer_or_a_log(make_database, make_gateway):
    """A canary in every secret, and every way to make the gateway talk of it."""
    database = make_database("postgres")
    secret = "canary" + uuid.uuid4().hex
    url = postgres_url(database, more=f"&password={secret}")
    mine = token(database, "phone", "--origin", ME)
    gateway = make_gateway(url, "--timeout", 1)
    said = []
    with gateway.client(mine) as http:
        database.sql('ALTER TABLE "Person" ADD CHECK ("Name" <> ?)'.replace("?", f"'{secret}'"))
        for path in ["/sync/changes", "/sync/state", f"/sync/changes?fromVersion={secret}", f"/{secret}", f"/sync/subscribe?tableName={secret}", "/metrics"]:
            said.append(http.get(path))
            said.append(http.get(path, headers={"Authorization": f"Bearer {secret}"}))
        database.sql("DROP EXTENSION pg_sync CASCADE")
        for path in ["/sync/changes", "/sync/state", "/health"]:
            said.append(http.get(path))
            assert said[-1].status_code >= 500
    log = gateway.log()
    assert mine not in log and secret not in log
    for words in ["SELECT ", "password", "sync_fetch_changes(", "stack backtrace", "src/"]:
        assert words not in log, words
        for answer in said:
            assert words not in answer.text, (words, answer.text)
    for answer in said:
        assert mine not in answer.text


def test_sqlite_errors_do_not_leak_either(make_database, make_gateway):
    database = make_database("sqlite")
    gateway = make_gateway(database)
    with gateway.client() as http:
        with sqlite3.connect(database.url) as connection:
            connection.execute("DROP TABLE _sync_tables")
        answer = http.get("/sync/changes")
    assert answer.status_code >= 500
    assert "_sync_tables" not in answer.text and "SELECT" not in answer.text and "SELECT" not in gateway.log()


def test_a_gateway_speaks_tls_when_given_a_certificate(database, make_gateway, certificate):
    gateway = make_gateway(database, "--tls-cert", certificate / "server.pem", "--tls-key", certificate / "server.key")
    with gateway.client(verify=ssl.create_default_context(cafile=certificate / "server.pem")) as http:
        assert http.get("/health").status_code == 200
