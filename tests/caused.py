"""Two schemas in which an apply causes more than it writes: notes in folders, by cascades, and orders with totals, by a trigger."""

from crafted import let_the_clock_tick

FOLDER = "CREATE TABLE folder(id INTEGER PRIMARY KEY, name TEXT)"
ORDERS = "CREATE TABLE orders(id INTEGER PRIMARY KEY, status TEXT, total INTEGER)"
LINE = "CREATE TABLE line(id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders(id), quantity INTEGER)"


def note(action):
    return f"CREATE TABLE note(id INTEGER PRIMARY KEY, folder INTEGER REFERENCES folder(id) ON DELETE {action}, text TEXT)"


def move_and_delete(replica):
    """The notes of folder 1 leave it, it is deleted, and one of them is edited."""
    replica.sql("UPDATE note SET folder = 2 WHERE folder = 1")
    replica.sql("DELETE FROM folder WHERE id = 1")
    replica.sql("UPDATE note SET text = 'edited' WHERE id = 7")
    let_the_clock_tick()


def delete_and_file(replica):
    """Folder 1 is deleted, and one of the notes that lose it gets another."""
    replica.sql("DELETE FROM folder WHERE id = 1")
    replica.sql("UPDATE note SET folder = 2 WHERE id = 7")
    let_the_clock_tick()


def add_and_pay(replica):
    """The order gets a line, and then another status."""
    replica.sql("INSERT INTO line VALUES (1, 1, 5)")
    replica.sql("UPDATE orders SET status = 'paid' WHERE id = 1")
    let_the_clock_tick()


def pay_and_push(client, server):
    """Three lines and three states of the order, each pushed by itself and nothing pulled meanwhile."""
    for status in ("packed", "sent", "paid"):
        client.sql("INSERT INTO line VALUES (NULL, 1, 5)")
        client.sql("UPDATE orders SET status = ? WHERE id = 1", status)
        client.push(server)
        let_the_clock_tick()


def cancel(replica):
    replica.sql("UPDATE orders SET status = 'cancelled' WHERE id = 1")
    let_the_clock_tick()


def assert_all(replicas, table, rows):
    """Every replica has these rows, and there is nothing to tell of."""
    assert [replica.rows(table) for replica in replicas] == [rows] * len(replicas)
    assert len({replica.hash() for replica in replicas}) == 1
    assert [replica.conflicts() for replica in replicas] == [[]] * len(replicas)
    assert [replica.rejections() for replica in replicas] == [[]] * len(replicas)
