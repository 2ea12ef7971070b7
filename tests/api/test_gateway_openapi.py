"""The OpenAPI document describes the running gateway: requests made from it are answered as it says."""

import json

import pytest
import schemathesis
from hypothesis import settings

REQUESTS = 40


def test_every_route_is_described(http):
    document = http.get("/openapi.json").json()
    assert document["info"]["version"] == http.get("/health").json()["version"]
    for path in document["paths"]:
        assert http.request("FROBNICATE", path.replace("{id}", "x")).status_code == 405, path


def test_the_gateway_answers_as_the_document_says(gateway, database):
    database.sql("""INSERT INTO "Person" VALUES ('p1', 'x', NULL)""")
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    for operation in schema.get_all_operations():
        operation = operation.ok()
        # A stream does not end; it has tests of its own.
        if operation.path == "/sync/subscribe":
            continue

        @schema_cases(operation)
        def check(case):
            answer = case.call(timeout=20)
            case.validate_response(answer, excluded_checks=EXCLUDED)
            assert answer.status_code not in (500, 503), answer.text

        check()


def schema_cases(operation):
    import hypothesis

    return lambda test: settings(max_examples=REQUESTS, deadline=None)(hypothesis.given(case=operation.as_strategy())(test))


# What JSON leaves open is open here as well: members that the document does not name are passed over, and true/1 are told apart by the core.
EXCLUDED = [
    check
    for check in schemathesis.checks.CHECKS.get_all()
    if check.__name__ in ("positive_data_acceptance", "negative_data_rejection", "missing_required_header", "unsupported_method")
]


@pytest.fixture
def database(make_database):
    return make_database("sqlite")


def test_it_is_valid_json_without_repeated_names(http):
    def once(pairs):
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), names
        return dict(pairs)

    json.loads(http.get("/openapi.json").text, object_pairs_hook=once)
