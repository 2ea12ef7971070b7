"""README.md is true: its snippets run, one after the other in one directory, and print what the README says they print.

Languages: `sh`; `sql`, whose first line `-- NAME.db` names the database; `python`; `js`. A `text` block is what the block before
it prints, with `...` for what differs from run to run. A `json` block is a batch. Blocks of commands that build or test the project
itself are not run again here: they must be what tests/run.sh runs.
"""

import dataclasses
import json
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
EXTENSION = "./target/release/libsqlite_sync"
SECONDS_PER_BLOCK = 60
# What tests/run.sh docs gets from npm.
NODE_PACKAGES = REPOSITORY / "target" / "node" / "node_modules"
PROJECT_COMMANDS = ("cargo ", "bash ", "cd pg_sync ")


@dataclasses.dataclass
class Block:
    line: int
    language: str
    text: str
    output: str | None = None

    @property
    def is_project_command(self):
        return self.language == "sh" and self.text.startswith(PROJECT_COMMANDS)

    @property
    def is_postgres(self):
        """It needs a PostgreSQL server: test_postgres_readme.py runs it."""
        return self.language == "psql" or "import psycopg" in self.text or "from 'pg'" in self.text or "postgres://" in self.text

    @property
    def is_run(self):
        return self.language in ("sh", "sql", "python", "js") and not self.is_project_command and not self.is_postgres


def fenced_blocks(markdown):
    """The fenced blocks in order; a `text` block becomes the expected output of the one before it."""
    blocks = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        block = Block(markdown.count("\n", 0, match.start()) + 1, match[1], match[2])
        if block.language == "text":
            assert blocks and (blocks[-1].is_run or blocks[-1].is_postgres) and blocks[-1].output is None, f"line {block.line}: output of what?"
            blocks[-1].output = block.text
        else:
            blocks.append(block)
    return blocks


BLOCKS = fenced_blocks(README)


def only(chosen):
    return pytest.mark.parametrize(
        "index", [i for i, block in enumerate(BLOCKS) if chosen(block)], ids=lambda i: f"line{BLOCKS[i].line}"
    )


def command(block, directory):
    """The command that runs a block, and its standard input."""
    if block.language == "sh":
        return ["bash", "-euo", "pipefail", "-s"], block.text
    if block.language == "sql":
        database = re.match(r"-- (\w+\.db)\b", block.text)
        assert database, f"line {block.line}: the first line of an sql block names the database"
        return ["sqlite3", "-init", "/dev/null", "-batch", "-bail", "-cmd", f".load {EXTENSION}", database[1]], block.text
    program = directory / f"line{block.line}{'.py' if block.language == 'python' else '.mjs'}"
    program.write_text(block.text, encoding="utf-8")
    if block.language == "python":
        return [sys.executable, program.name], ""
    node = shutil.which("node")
    assert node, "Node is not installed: tests/run.sh docs installs it"
    return [node, "--no-warnings", program.name], ""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The finished process of every block that is run, by its index."""
    directory = tmp_path_factory.mktemp("readme")
    (directory / "target").symlink_to(REPOSITORY / "target")
    finished = {}
    for index, block in enumerate(BLOCKS):
        if block.is_run:
            arguments, standard_input = command(block, directory)
            finished[index] = subprocess.run(
                arguments, input=standard_input, cwd=directory, text=True, capture_output=True, timeout=SECONDS_PER_BLOCK
            )
    return finished


@pytest.fixture
def extension():
    """An empty database with the extension loaded."""
    connection = sqlite3.connect(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(str(REPOSITORY / EXTENSION))
    yield connection
    connection.close()


def pattern(expected):
    """A regular expression for an output block, with `...` for anything."""
    return ".*".join(re.escape(part) for part in expected.strip().split("..."))


@only(lambda block: block.is_run)
def test_snippet_runs_and_prints_what_is_shown(runs, index):
    block, run = BLOCKS[index], runs[index]
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    if block.output is not None:
        assert re.fullmatch(pattern(block.output), run.stdout.strip(), re.DOTALL), run.stdout


@only(lambda block: block.is_project_command)
def test_commands_of_the_project_are_those_the_test_run_uses(index):
    scripts = "".join((REPOSITORY / path).read_text() for path in ("tests/run.sh", "sql/demo.sh"))
    for line in BLOCKS[index].text.splitlines():
        assert line.split("  #")[0].strip() in scripts, line


@only(lambda block: block.language == "json")
def test_a_batch_that_is_shown_has_the_hash_that_it_shows(index, extension):
    text = BLOCKS[index].text
    assert extension.execute("SELECT sync_hash_batch(?)", (text,)).fetchone() == (json.loads(text)["hash"],)


def test_every_block_has_a_known_language():
    assert {block.language for block in BLOCKS} <= {"sh", "sql", "psql", "python", "js", "json"}


def test_the_function_tables_name_every_function_and_no_other(extension):
    named = set(re.findall(r"^\| `(sync_\w+)\(", README, re.MULTILINE))
    registered = extension.execute(
        "SELECT name FROM pragma_function_list WHERE name LIKE 'sync\\_%' ESCAPE '\\'"
        " UNION SELECT name FROM pragma_module_list WHERE name LIKE 'sync\\_%' ESCAPE '\\'"
    )
    assert named == {name for (name,) in registered}


def anchor(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere():
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith(("http:", "https:")):
            assert (REPOSITORY / target).exists(), target
