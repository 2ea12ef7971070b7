"""README.md is true of PostgreSQL as well: its psql, psycopg and node-postgres snippets run, one after the other, and print what it shows."""

import os
import re
import subprocess

import pytest

from cluster import Cluster, bindir
from test_readme import BLOCKS, NODE_PACKAGES, REPOSITORY, command


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.close()


def folded(text):
    """The text without the widths that psql gives to columns."""
    return [re.sub(r"[\s-]+", " ", line).strip() for line in text.strip().splitlines()]


def test_the_snippets_for_postgresql_run_and_print_what_is_shown(cluster, tmp_path):
    (tmp_path / "target").symlink_to(REPOSITORY / "target")
    database = cluster.create_database()
    where = {
        "PGHOST": str(cluster.folder), "PGUSER": "postgres", "PGDATABASE": database, "SERVER": "",
        "SERVER_URL": f"postgres://postgres@/{database}?host={cluster.folder}",
    }
    (tmp_path / "node_modules").symlink_to(NODE_PACKAGES)
    blocks = [block for block in BLOCKS if block.is_postgres]
    assert {block.language for block in blocks} == {"psql", "python", "js"}
    for block in blocks:
        if block.language == "psql":
            program, text = [str(bindir() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"], block.text
        else:
            program, text = command(block, tmp_path)
        run = subprocess.run(program, input=text, env=os.environ | where, cwd=tmp_path, text=True, capture_output=True, timeout=60)
        assert run.returncode == 0, run.stdout + run.stderr
        if block.output is not None:
            assert folded(run.stdout) == folded(block.output), f"line {block.line}: {run.stdout}"


@pytest.mark.parametrize("name", ["sync_fetch_changes", "sync_apply_batch"])
def test_functions_that_the_readme_grants_exist(cluster, name):
    with cluster.connect(cluster.create_database()) as connection:
        connection.execute("CREATE EXTENSION pg_sync")
        assert connection.execute("SELECT count(*) FROM pg_proc WHERE proname = %s", (name,)).fetchone() == (1,)
