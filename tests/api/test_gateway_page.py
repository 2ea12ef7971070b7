"""The live page in a real browser: what it shows, with a keyboard, on a phone, in the dark, and that it asks nobody else."""

import json
import os
import pathlib
import shutil
import uuid

import pytest
from playwright.sync_api import expect, sync_playwright

from gateway import add_token

ME = str(uuid.uuid4())
# Where the pictures go, to be looked at.
SHOTS = os.environ.get("SYNC_SHOTS")
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """A page of the gateway in a window of its own; errors of its script and requests to others fail the test."""
    contexts, wrong = [], []

    def open_(gateway, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: request.url.startswith((gateway.url, "data:")) or wrong.append(request.url))
        page.goto(gateway.url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def server(make_database):
    """A database with rows, a client that is behind, a conflict and a rejection."""
    database = make_database("sqlite")
    database.sql("""INSERT INTO "Person" VALUES ('p1', 'Alice', 'alice@example.com'), ('p2', 'Bob', NULL)""")
    database.sql("SELECT sync_register_client(?, ?)", ME, 1)
    change = {
        "version": 1, "tableName": "Person", "pkValue": '{"Id":"p1"}', "operation": "Update",
        "payload": '{"Id":"p1","Name":"<b>Mallory</b>","Email":null}', "origin": ME, "timestamp": "2026-01-15T10:30:00.000Z",
    }
    refused = {**change, "version": 2, "pkValue": '{"Id":"p9"}', "payload": '{"Id":"p9","Nope":1}', "operation": "Insert"}
    database.apply({"originId": ME, "changes": [change, refused]})
    return database


def picture(page, name):
    if SHOTS:
        page.screenshot(path=pathlib.Path(SHOTS) / f"{name}.png", full_page=True)


def test_the_page_shows_what_there_is(server, make_gateway, open_page):
    page = open_page(make_gateway(server))
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#clients")).to_contain_text(ME[:8])
    expect(page.locator("#clients .warn")).to_have_count(1)
    expect(page.locator("#tables")).to_contain_text("Person")
    expect(page.locator("#version")).to_have_text("2")
    page.locator("#conflicts summary").click()
    expect(page.locator("#conflicts .sides")).to_contain_text("Alice")
    expect(page.locator("#conflicts .sides")).to_contain_text("<b>Mallory</b>")
    assert page.locator("#conflicts b b").count() == 0, "what comes from a database is text"
    expect(page.locator("#rejections")).to_contain_text("SchemaMismatch")
    page.locator("#hash").click()
    expect(page.locator("#tables")).to_contain_text(server.hash("Person")[:16])
    picture(page, "page")


def test_changes_arrive_as_they_happen(server, make_gateway, open_page):
    gateway = make_gateway(server)
    page = open_page(gateway)
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#changes tr").first).to_contain_text("Bob")
    server.sql("""INSERT INTO "Person" VALUES ('p3', 'Carol', NULL)""")
    expect(page.locator("#changes tr").first).to_contain_text("Carol")
    page.locator("#pause").click()
    server.sql("""INSERT INTO "Person" VALUES ('p4', 'Dora', NULL)""")
    expect(page.locator("#changes-note")).to_contain_text("1 held back")
    page.locator("#pause").click()
    expect(page.locator("#changes tr").first).to_contain_text("Dora")
    gateway.kill()
    expect(page.locator("#live")).to_contain_text("again")
    server.sql("""INSERT INTO "Person" VALUES ('p5', 'Eve', NULL)""")
    gateway.start()
    expect(page.locator("#changes tr").first).to_contain_text("Eve", timeout=15_000)
    expect(page.locator("#changes tr")).to_have_count(5)


def test_what_stays_the_same_is_asked_once(server, make_gateway, open_page):
    asked = []
    gateway = make_gateway(server)
    page = open_page(gateway)
    page.on("request", lambda request: asked.append(request.url.removeprefix(gateway.url)))
    page.reload()
    expect(page.locator("#live")).to_have_text("live")
    for number in range(3, 6):
        expect(page.locator("#version")).to_have_text(str(number - 1))
        server.sql("""INSERT INTO "Person" VALUES (?, 'Carol', NULL)""", f"p{number}")
    expect(page.locator("#version")).to_have_text("5")
    assert asked.count("/sync/status") >= 3 and asked.count("/sync/state") == 1, "to know the state the whole log is counted"


def test_a_token_is_asked_for_and_the_keyboard_is_enough(server, make_gateway, open_page):
    token = add_token(server.url, "page")
    page = open_page(make_gateway(server))
    expect(page.locator("#ask")).to_be_visible()
    picture(page, "token")
    page.keyboard.press("Tab") if page.evaluate("document.activeElement.id") != "token" else None
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#ask")).to_be_visible()
    page.locator("#token").focus()
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#tables")).to_contain_text("Person")
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"hash", "pause", "SUMMARY"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_by_day_and_by_night(server, make_gateway, open_page, scheme):
    page = open_page(make_gateway(server), viewport=PHONE, color_scheme=scheme)
    expect(page.locator("#tables")).to_contain_text("Person")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    colours = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    light = [sum(json.loads("[" + c[4:-1] + "]")) > 380 for c in colours]
    assert light == ([True, False] if scheme == "light" else [False, True])
    picture(page, f"phone-{scheme}")


def test_an_event_source_of_a_browser_is_served(server, make_gateway, open_page):
    page = open_page(make_gateway(server))
    # A promise, for to wait for a condition the page would have to evaluate a text, which its policy forbids.
    page.evaluate(
        """() => { const source = new EventSource('/sync/subscribe?tableName=Person&fromVersion=1'), seen = [];
        window.both = new Promise(resolve => source.addEventListener('change', event => {
          if (seen.push([event.lastEventId, JSON.parse(event.data).pkValue]) === 2) resolve(seen) })) }"""
    )
    server.sql("""INSERT INTO "Person" VALUES ('p3', 'Carol', NULL)""")
    assert page.evaluate("both") == [["2", '{"Id":"p2"}'], ["3", '{"Id":"p3"}']]
