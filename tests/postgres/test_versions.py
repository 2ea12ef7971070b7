"""An extension that was made by an older version's script and updated is the one that this version's script makes."""

import pathlib

import pytest

from freeze import FOLDER, current_version, extension_folder

CURRENT = current_version()
# Install scripts have one version in their names, update scripts two.
FROZEN = sorted(path.stem.split("--")[1] for path in FOLDER.glob("pg_sync--*.sql") if path.stem.count("--") == 1)

# What belongs to the extension, by kind; names, definitions, rights and explanations.
MEMBERS = """
WITH member AS (
  SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_sync'
), relation AS (
  SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
)
SELECT 'member', pg_describe_object(classid, objid, 0), NULL, NULL FROM member
UNION ALL
SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid) || coalesce(obj_description(p.oid, 'pg_proc'), ''),
  array(SELECT unnest(p.proacl)::text ORDER BY 1)::text
FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
UNION ALL
SELECT 'relation', c.relname, concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, obj_description(c.oid, 'pg_class')),
  array(SELECT unnest(c.relacl)::text ORDER BY 1)::text
FROM relation c
UNION ALL
SELECT 'column', concat(c.relname, ' ', row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)),
  concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attcollation::regcollation,
    pg_get_expr(f.adbin, f.adrelid)),
  col_description(c.oid, a.attnum)
FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
UNION ALL
SELECT 'constraint', k.conname, c.relname, pg_get_constraintdef(k.oid) FROM relation c JOIN pg_constraint k ON k.conrelid = c.oid
UNION ALL
SELECT 'index', i.indexrelid::regclass::text, c.relname, pg_get_indexdef(i.indexrelid) FROM relation c JOIN pg_index i ON i.indrelid = c.oid
UNION ALL
SELECT 'view', c.relname, pg_get_viewdef(c.oid), NULL FROM relation c WHERE c.relkind = 'v'
UNION ALL
SELECT 'sequence', c.relname, concat_ws(' ', s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle), s.seqtypid::regtype::text
FROM relation c JOIN pg_sequence s ON s.seqrelid = c.oid
UNION ALL
SELECT 'trigger', c.relname || ' ' || t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid
UNION ALL
SELECT 'event trigger', t.evtname, concat_ws(' ', t.evtevent, t.evtenabled, t.evttags), t.evtfoid::regprocedure::text
FROM pg_event_trigger t JOIN member m ON m.classid = 'pg_event_trigger'::regclass AND m.objid = t.oid
UNION ALL
SELECT 'dumped', u.relation::regclass::text, u.condition, NULL
FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS u(relation, condition) WHERE e.extname = 'pg_sync'
ORDER BY 1, 2
"""


def members(cluster, *statements):
    with cluster.connect(cluster.create_database()) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.execute(MEMBERS).fetchall()


@pytest.fixture
def installable():
    """Puts a frozen script where the server finds it, under a name that no built one has; returns its version there."""
    placed = []

    def place(version):
        name = f"frozen.{version}" if version == CURRENT else version
        target = extension_folder() / f"pg_sync--{name}.sql"
        if not target.exists():
            placed.append(target)
            target.write_bytes((FOLDER / f"pg_sync--{version}.sql").read_bytes())
        return name

    yield place
    for path in placed:
        pathlib.Path(path).unlink()


@pytest.mark.parametrize("version", FROZEN)
def test_what_an_older_version_made_is_updated_to_what_this_one_makes(cluster, installable, version):
    made = [f"CREATE EXTENSION pg_sync VERSION '{installable(version)}'"]
    if version != CURRENT:
        made.append(f"ALTER EXTENSION pg_sync UPDATE TO '{CURRENT}'")
    built = members(cluster, "CREATE EXTENSION pg_sync")
    assert len(built) > 200 and members(cluster, *made) == built, "see tests/freeze.py, if what is new belongs to this version"


def test_the_script_of_this_version_is_kept():
    assert CURRENT in FROZEN
