"""Keeps the install script of the version under work in sql/postgres, made of the one that was built and installed last.

`python tests/freeze.py` writes it. What was released is never written again: its script is what the databases of its users were made by.
"""

import os
import pathlib
import re
import subprocess
import sys

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "sql" / "postgres"
BLOCK = re.compile(r"/\* <begin connected objects> \*/\n(.*?)\n/\* </end connected objects> \*/", re.DOTALL)
HEADER = "-- pg_sync {}: the install script as it is built, kept to be compared with; `bash tests/run.sh freeze` makes it.\n"


def extension_folder():
    """Where the server looks for install scripts."""
    return pathlib.Path(subprocess.check_output([PG_CONFIG, "--sharedir"], text=True).strip()) / "extension"


def current_version():
    control = (extension_folder() / "pg_sync.control").read_text(encoding="utf-8")
    return re.search(r"default_version = '(.*)'", control)[1]


def frozen(script):
    """A built script in an order that stays, without what tells where and by whom it was made."""
    first, functions, written, last = [], [], [], []
    for block in BLOCK.findall(script):
        kind = re.search(r"^-- (bootstrap|finalize)$", block, re.MULTILINE)
        text = re.sub(r"^(-- pg_sync(/|::).*|-- bootstrap|-- finalize)\n", "", block, flags=re.MULTILINE)
        if kind:
            (first if kind[1] == "bootstrap" else last).append(text)
        elif "CREATE VIEW" in text or "LANGUAGE plpgsql" in text:
            written.append(re.sub(r"^-- requires:\n(--   .*\n)+", "", text, flags=re.MULTILINE))
        elif text.startswith("CREATE"):
            text = re.sub(r" */\*.*?\*/", "", text)
            functions.append(re.sub(r"\(\s*\)", "()", text.replace("CREATE  FUNCTION", "CREATE FUNCTION").replace("\t", "  ")))
    return "\n\n".join(text.strip() for text in (*first, *sorted(functions), *written, *last)) + "\n"


def main():
    version = current_version()
    built = (extension_folder() / f"pg_sync--{version}.sql").read_text(encoding="utf-8")
    target = FOLDER / f"pg_sync--{version}.sql"
    target.write_text(HEADER.format(version) + "\n" + frozen(built), encoding="utf-8")
    print(f"{target.name}: {len(target.read_text(encoding='utf-8').splitlines())} lines")


if __name__ == "__main__":
    sys.exit(main())
