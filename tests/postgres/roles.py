"""Roles for a test, and the grants that README.md gives to a sync user."""

import itertools
import pathlib
import re

README = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
NUMBERS = itertools.count(1)


def granted_functions():
    """The functions that README.md grants to a sync user."""
    [names] = re.findall(r"GRANT EXECUTE ON FUNCTION\s+([\w,\s]+?)\s+TO app_sync;", README)
    return [name.strip() for name in names.split(",")]


def sync_user(database, *grants):
    """A role that may do what the README's sync user may, and what is granted besides: `SELECT ON person`."""
    role = writer(database, *grants)
    database.sql(f"GRANT EXECUTE ON FUNCTION {', '.join(granted_functions())} TO {role}")
    return role


def writer(database, *grants):
    """A role that may log in, and do what is granted."""
    role = f"role{next(NUMBERS)}"
    database.sql(f"CREATE ROLE {role} LOGIN")
    for grant in grants:
        database.sql(f"GRANT {grant} TO {role}")
    return role
