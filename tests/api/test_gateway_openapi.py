"""The OpenAPI document describes the running gateway: requests made from it are answered as it says."""

import json
import uuid

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gateway import add_token

REQUESTS = 40
LONGEST_WAIT = 60_000


def test_every_route_is_described(http):
    document = http.get("/openapi.json").json()
    assert document["info"]["version"] == http.get("/health").json()["version"]
    for path in document["paths"]:
        assert http.request("FROBNICATE", path.replace("{id}", "x")).status_code == 405, path


def test_the_gateway_answers_as_the_document_says(make_gateway, database):
    database.sql("""INSERT INTO "Person" VALUES ('p1', 'x', NULL)""")
    token = add_token(database.url, "x", "--origin", str(uuid.uuid4()), "--relay")
    gateway = make_gateway(database)
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json", headers=headers)
    for operation in schema.get_all_operations():
        operation = operation.ok()
        # A stream does not end; it has tests of its own.
        if operation.path == "/sync/subscribe":
            continue

        @schema_cases(operation)
        def check(case):
            # A longer wait has the same answer, later.
            if 100 < int_or_0((case.query or {}).get("waitMs")) <= LONGEST_WAIT:
                case.query["waitMs"] = 100
            # A schema cannot say which changes a table takes, and whose they may be.
            answer = case.call(timeout=20, headers=headers)
            case.validate_response(answer, excluded_checks=[positive_data_acceptance], headers=headers)
            assert answer.status_code not in (500, 503), answer.text

        check()


def int_or_0(value):
    return value if isinstance(value, int) else 0


def schema_cases(operation):
    return lambda test: hypothesis.settings(max_examples=REQUESTS, deadline=None)(hypothesis.given(case=operation.as_strategy())(test))


@pytest.fixture
def database(make_database):
    return make_database("sqlite")


def test_it_is_valid_json_without_repeated_names(http):
    def once(pairs):
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), names
        return dict(pairs)

    json.loads(http.get("/openapi.json").text, object_pairs_hook=once)
