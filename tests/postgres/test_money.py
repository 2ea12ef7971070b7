"""`money` is written by the locale of the session. What is logged and applied is not."""

import os
import pathlib
import shutil
import subprocess

import pytest

from cluster import Cluster
from pg_replica import PgReplica

LOCALES = {"de_DE": "1.234,56 €", "ja_JP": "￥123,456"}
TABLE = "CREATE TABLE t(id int PRIMARY KEY, m money, a money[], p priced)"


@pytest.fixture(scope="module")
def worldly(tmp_path_factory):
    """A server that knows other locales, which are made for it."""
    assert shutil.which("localedef") and pathlib.Path("/usr/share/i18n/locales/de_DE").exists(), "tests/run.sh installs the package locales"
    folder = tmp_path_factory.mktemp("locales")
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.owner() == folder.owner() and parent != parent.parent and str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    for name in LOCALES:
        subprocess.run(["localedef", "-i", name, "-f", "UTF-8", folder / f"{name}.UTF-8"], check=True)
    before = os.environ.get("LOCPATH")
    os.environ["LOCPATH"] = f"{folder}:/usr/lib/locale"
    cluster = Cluster()
    yield cluster
    cluster.close()
    os.environ.pop("LOCPATH")
    if before is not None:
        os.environ["LOCPATH"] = before


@pytest.fixture
def make_till(worldly):
    opened = []

    def make(locale):
        till = PgReplica(worldly)
        opened.append(till)
        till.script(f"CREATE TYPE priced AS (what text, price money); {TABLE}; SET lc_monetary = '{locale}'")
        till.track("t")
        return till

    yield make
    for till in opened:
        till.close()


@pytest.mark.parametrize("locale", LOCALES)
def test_a_sum_is_logged_and_applied_whatever_the_sessions_locale_is(make_till, locale):
    here, there = make_till(f"{locale}.UTF-8"), make_till("C")
    here.sql("SET lc_monetary = 'C'")
    here.sql("INSERT INTO t VALUES (1, '$1,234.56', '{$1.00,-$2.50}', ROW('a', '$3.25'))")
    here.sql(f"SET lc_monetary = '{locale}.UTF-8'")
    assert here.value("SELECT m::text FROM t").strip() == LOCALES[locale]
    here.sql("INSERT INTO t SELECT 2, m, a, p FROM t WHERE id = 1")
    payloads = {entry["payload"].replace('"id":2', '"id":1') for entry in here.log()}
    assert payloads == {'{"id":1,"m":"$1,234.56","a":"[\\"$1.00\\",\\"-$2.50\\"]","p":"(a,$3.25)"}'}
    assert here.value("SELECT m::text FROM t LIMIT 1").strip() == LOCALES[locale], "the session's own locale is as it was"
    there.pull(here)
    assert there.rejections() == [] and there.hash() == here.hash()
    here.sql("UPDATE t SET m = m * -1")
    there.sql(f"SET lc_monetary = '{'ja_JP' if locale == 'de_DE' else 'de_DE'}.UTF-8'")
    there.pull(here)
    assert there.rejections() == [] and there.hash() == here.hash()
    for each in (here, there):
        each.sql("SET lc_monetary = 'C'")
    assert there.sql("SELECT id, m::text, a::text, p::text FROM t ORDER BY id") == here.sql("SELECT id, m::text, a::text, p::text FROM t ORDER BY id")


def test_it_is_warned_of(make_till):
    [finding] = make_till("C").records("SELECT * FROM sync_check_table('t')")
    assert (finding["severity"], finding["code"], finding["fix"]) == ("warning", "MoneyLocale", "use numeric")
