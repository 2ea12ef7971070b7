"""Changes of the schema of `Person`."""

REBUILD = [
    "CREATE TABLE new_person(Id INTEGER PRIMARY KEY, Email TEXT, Name TEXT NOT NULL DEFAULT '')",
    "INSERT INTO new_person(Id, Email, Name) SELECT Id, Email, coalesce(Name, '') FROM Person",
    "DROP TABLE Person",
    "ALTER TABLE new_person RENAME TO Person",
]


def alter(statement, *replicas):
    for replica in replicas:
        replica.sql(statement)
