"""Foreign keys: the order of changes never matters, across batches either, and the result never depends on the connection."""

import itertools

import pytest

from crafted import delete, insert, pull, push, stamp, update

PARENT = "CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT)"
CHILD = "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INT NOT NULL REFERENCES parent(id))"
NODE = "CREATE TABLE node(id INTEGER PRIMARY KEY, above INT REFERENCES node(id))"


@pytest.fixture(params=["ON", "OFF"])
def foreign_keys(request):
    """What the applying connection's pragma says."""
    return request.param


@pytest.fixture
def family(make_replica, foreign_keys):
    """A replica with parents and children, on a connection with this setting."""
    replica = make_replica("family", PARENT, CHILD, track=["parent", "child"])
    replica.sql(f"PRAGMA foreign_keys = {foreign_keys}")
    return replica


def parent(id, name="p", **about):
    return insert("parent", {"id": id, "name": name}, ["id"], **about)


def child(id, parent, **about):
    return insert("child", {"id": id, "parent": parent}, ["id"], **about)


def node(id, above):
    return insert("node", {"id": id, "above": above}, ["id"])


def waiting(result):
    return result["deferred"] + result["rejected"]


def is_sound(replica):
    return replica.sql("PRAGMA foreign_key_check") == [] and replica.rejections() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_inside_a_batch_does_not_matter(family, order):
    changes = [parent(1), parent(2), child(10, 1), child(20, 2)]
    result = family.apply(push(*(changes[index] for index in order)))
    assert (result["applied"], waiting(result)) == (4, 0)
    assert family.rows("child") == [(10, 1), (20, 2)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_deletes_of_parent_and_children_come_in_any_order(family, order):
    family.apply(push(parent(1), child(10, 1), child(11, 1)))
    later = stamp(minutes=1)
    deletes = [delete("parent", {"id": 1}, at=later), delete("child", {"id": 10}, at=later), delete("child", {"id": 11}, at=later)]
    result = family.apply(push(*(deletes[index] for index in order), after=3))
    assert (result["applied"], waiting(result)) == (3, 0)
    assert family.rows("parent") == family.rows("child") == []


def test_an_orphan_waits_whatever_the_connection_says(family):
    result = family.apply(push(parent(1), child(10, 1), child(20, 2)))
    assert (result["applied"], waiting(result)) == (2, 1)
    assert family.rows("child") == [(10, 1)]
    [rejection] = family.rejections()
    assert (rejection["table_name"], rejection["pk_value"], rejection["kind"]) == ("child", '{"id":20}', "ForeignKeyViolation")


def test_two_changes_of_a_row_go_on_when_the_parent_of_the_last_comes(family):
    result = family.apply(push(child(10, 7, at=stamp()), child(10, 8, at=stamp(minutes=1))))
    assert (result["applied"], waiting(result)) == (0, 2)
    family.apply(push(parent(8), after=2))
    assert family.rows("child") == [(10, 8)]
    assert is_sound(family)


def test_the_connections_setting_is_the_same_afterwards(family, foreign_keys):
    family.apply(push(child(10, 1)))
    assert family.value("PRAGMA foreign_keys") == (foreign_keys == "ON")
    assert family.value("PRAGMA defer_foreign_keys") == 0


def test_an_orphan_waits_also_inside_the_users_transaction(family):
    with family.transaction():
        result = family.apply(push(parent(1), child(10, 1), child(20, 2)))
    assert (result["applied"], waiting(result)) == (2, 1)
    assert family.rows("child") == [(10, 1)]


def test_an_orphan_is_applied_when_its_parent_comes_in_a_later_batch(family):
    family.apply(push(child(10, 1)))
    assert family.rows("child") == []
    family.apply(push(parent(1), after=1))
    assert family.rows("child") == [(10, 1)]
    assert is_sound(family)


def test_an_orphan_is_applied_when_its_parent_is_inserted_here(family):
    family.apply(push(child(10, 1)))
    family.sql("INSERT INTO parent VALUES (1, 'here')")
    family.apply(push(parent(9), after=1))
    assert family.rows("child") == [(10, 1)]
    assert is_sound(family)


def test_an_orphan_moves_the_cursor_of_a_pull_and_is_not_lost(family):
    family.apply(pull(child(10, 1)))
    assert family.cursor == 1
    family.apply(pull(parent(1), after=1))
    assert family.rows("child") == [(10, 1)]


def test_a_parent_is_not_deleted_under_a_child_the_sender_did_not_know(family):
    family.apply(push(parent(1)))
    family.sql("INSERT INTO child VALUES (10, 1)")
    result = family.apply(push(delete("parent", {"id": 1}, at=stamp(minutes=1)), after=1))
    assert waiting(result) == 1
    assert family.rows("parent") == [(1, "p")]
    assert [rejection["kind"] for rejection in family.rejections()] == ["ForeignKeyViolation"]
    family.sql("DELETE FROM child")
    family.json("SELECT sync_retry()")
    assert family.rows("parent") == [] and is_sound(family)


@pytest.mark.parametrize("is_first", [True, False], ids=["delete first", "child first"])
def test_a_child_does_not_wait_for_a_parent_that_could_not_be_deleted(family, is_first):
    family.apply(push(parent(1)))
    family.sql("INSERT INTO child VALUES (10, 1)")
    changes = [delete("parent", {"id": 1}, at=stamp(minutes=1)), child(20, 1)]
    result = family.apply(push(*(changes if is_first else reversed(changes)), after=1))
    assert (result["applied"], waiting(result)) == (1, 1)
    assert family.rows("child") == [(10, 1), (20, 1)]
    assert [rejection["operation"] for rejection in family.rejections()] == ["delete"]
    family.sql("DELETE FROM child")
    family.sql("SELECT sync_retry()")
    assert family.rows("parent") == [] and is_sound(family)


def test_a_change_of_a_row_does_not_wait_with_the_next_one(family):
    family.apply(push(parent(1)))
    result = family.apply(push(child(10, 1), update("child", {"id": 10, "parent": 2}, ["id"]), child(11, 1), child(12, 3), after=1))
    assert (result["applied"], waiting(result)) == (2, 2)
    assert family.rows("child") == [(10, 1), (11, 1)]
    family.apply(push(parent(2), after=5))
    assert family.rows("child") == [(10, 2), (11, 1)]


def test_a_parent_that_is_deleted_and_comes_back_keeps_its_children(family):
    family.apply(push(parent(1), child(10, 1)))
    changes = [delete("parent", {"id": 1}, at=stamp(seconds=1)), parent(1, "again", at=stamp(seconds=2)), child(20, 7)]
    result = family.apply(push(*changes, after=2))
    assert (result["applied"], waiting(result)) == (2, 1)
    assert family.rows("parent") == [(1, "again")] and family.rows("child") == [(10, 1)]


def test_a_child_that_moves_to_another_parent_lets_the_old_one_go(family):
    family.apply(push(parent(1), parent(2), child(10, 1)))
    at = stamp(minutes=1)
    result = family.apply(push(delete("parent", {"id": 1}, at=at), update("child", {"id": 10, "parent": 2}, ["id"], at=at), after=3))
    assert (result["applied"], waiting(result)) == (2, 0)


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("depth", [2, 6, 40])
def test_a_chain_in_reverse_order_arrives_in_every_batch_size(make_pair, foreign_keys, size, depth):
    server, client = make_pair(NODE, track=["node"])
    client.sql(f"PRAGMA foreign_keys = {foreign_keys}")
    for id in range(1, depth):
        server.sql("INSERT INTO node VALUES (?, ?)", id, id + 1)
    server.sql("INSERT INTO node VALUES (?, NULL)", depth)
    client.pull(server, size=size)
    assert client.rows("node") == server.rows("node")
    assert is_sound(client)
    assert client.hash() == server.hash()


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_rows_that_refer_to_each_other_arrive_in_every_batch_size(make_pair, foreign_keys, size):
    left = "CREATE TABLE man(id INTEGER PRIMARY KEY, wife INT NOT NULL REFERENCES woman(id) DEFERRABLE INITIALLY DEFERRED)"
    right = "CREATE TABLE woman(id INTEGER PRIMARY KEY, husband INT NOT NULL REFERENCES man(id))"
    server, client = make_pair(left, right, track=["man", "woman"])
    client.sql(f"PRAGMA foreign_keys = {foreign_keys}")
    with server.transaction():
        server.sql("INSERT INTO man VALUES (1, 2), (3, 4)")
        server.sql("INSERT INTO woman VALUES (4, 3), (2, 1)")
    client.pull(server, size=size)
    assert client.rows("man") == server.rows("man") and client.rows("woman") == server.rows("woman")
    assert is_sound(client)


def test_a_row_may_refer_to_itself(make_replica, foreign_keys):
    replica = make_replica("family", NODE, track=["node"])
    replica.sql(f"PRAGMA foreign_keys = {foreign_keys}")
    assert replica.apply(push(node(1, 1)))["applied"] == 1


COMPOSITE = [
    "CREATE TABLE invoice(year INT, number INT, PRIMARY KEY (number, year))",
    "CREATE TABLE line(id INTEGER PRIMARY KEY, year INT, number INT, FOREIGN KEY (year, number) REFERENCES invoice(year, number))",
]


def test_composite_keys_are_followed_across_batches(make_replica, foreign_keys):
    replica = make_replica("books", *COMPOSITE, track=["invoice", "line"])
    replica.sql(f"PRAGMA foreign_keys = {foreign_keys}")
    replica.apply(push(
        insert("line", {"id": 1, "year": 2025, "number": 1}, ["id"]),
        insert("line", {"id": 2, "year": 2025, "number": None}, ["id"]),
        insert("line", {"id": 3, "year": 1, "number": 2025}, ["id"]),
    ))
    assert replica.rows("line") == [(2, 2025, None)], "a NULL in the key refers to nothing"
    replica.apply(push(insert("invoice", {"year": 2025, "number": 1}, ["number", "year"]), after=3))
    assert replica.rows("line") == [(1, 2025, 1), (2, 2025, None)]


def test_a_parent_may_be_found_by_other_unique_columns(make_replica, foreign_keys):
    replica = make_replica(
        "shop",
        "CREATE TABLE product(id INTEGER PRIMARY KEY, code TEXT UNIQUE COLLATE NOCASE)",
        "CREATE TABLE sale(id INTEGER PRIMARY KEY, code TEXT REFERENCES product(code))",
        track=["product", "sale"],
    )
    replica.sql(f"PRAGMA foreign_keys = {foreign_keys}")
    replica.apply(push(insert("sale", {"id": 1, "code": "abc"}, ["id"])))
    assert replica.rows("sale") == []
    replica.apply(push(insert("product", {"id": 1, "code": "ABC"}, ["id"]), after=1))
    assert replica.rows("sale") == [(1, "abc")]
    result = replica.apply(push(update("product", {"id": 1, "code": "xyz"}, ["id"], at=stamp(minutes=1)), after=2))
    assert waiting(result) == 1 and replica.rows("product") == [(1, "ABC")]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_what_an_applied_delete_cascades_is_a_local_change(make_replica, foreign_keys, action):
    owned = f"CREATE TABLE owned(id INTEGER PRIMARY KEY, parent INT REFERENCES parent(id) ON DELETE {action})"
    replica = make_replica("family", PARENT, owned, track=["parent", "owned"])
    replica.sql(f"PRAGMA foreign_keys = {foreign_keys}")
    replica.apply(push(parent(1)))
    replica.sql("INSERT INTO owned VALUES (10, 1)")
    replica.apply(push(delete("parent", {"id": 1}, at=stamp(minutes=1)), after=1))
    assert replica.rows("owned") == ([] if action == "CASCADE" else [(10, None)])
    newest = replica.log("owned")[-1]
    assert newest["origin"] == replica.origin
    assert newest["operation"] == ("delete" if action == "CASCADE" else "update")


def test_replicas_with_different_settings_end_the_same(make_replica):
    tables = (PARENT, "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INT REFERENCES parent(id) ON DELETE CASCADE)")
    server, strict, lax = (make_replica(name, *tables, track=["parent", "child"]) for name in ("server", "strict", "lax"))
    strict.sql("PRAGMA foreign_keys = ON")
    lax.sql("PRAGMA foreign_keys = OFF")
    server.sql("INSERT INTO parent VALUES (1, 'a'), (2, 'b')")
    server.sql("INSERT INTO child VALUES (10, 1), (20, 2)")
    for client in (strict, lax):
        client.sync(server)
    strict.sql("DELETE FROM parent WHERE id = 1")
    lax.sql("INSERT INTO child VALUES (11, 1)")
    for client in (strict, lax, strict, lax, strict, lax):
        client.sync(server)
    assert strict.hash() == lax.hash() == server.hash()
    for replica in (server, strict, lax):
        assert replica.sql("PRAGMA foreign_key_check") == []
