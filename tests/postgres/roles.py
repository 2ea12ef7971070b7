"""Roles for a test, and what README.md gives to a sync user."""

import itertools
import pathlib
import re

README = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
NUMBERS = itertools.count(1)


def client_functions():
    """The functions that a client calls, as README.md lists them."""
    [names] = re.findall(r"what a client calls, and no other:\s+([`\w,\s]+?)\.\s", README)
    return re.findall(r"\w+", names)


def sync_user(database, *grants):
    """A role that may do what the README's sync user may, and what is granted besides: `SELECT ON person`."""
    role = writer(database, *grants)
    database.sql("SELECT sync_grant_client(?)", role)
    return role


def writer(database, *grants):
    """A role that may log in, and do what is granted."""
    role = f"role{next(NUMBERS)}"
    database.sql(f"CREATE ROLE {role} LOGIN")
    for grant in grants:
        database.sql(f"GRANT {grant} TO {role}")
    return role
