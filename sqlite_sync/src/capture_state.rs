//! Is a table's capture as it should be? Read off the triggers as they stand in the schema.

use crate::capture::{trigger_names, trigger_statements};
use crate::describe::describe;
use crate::error::engine;
use rusqlite::{Connection, OptionalExtension};
use sync_shared::{CaptureState, Result, Table};

struct Trigger {
    name: String,
    table_name: String,
    sql: String,
    age: i64,
}

pub fn capture_state(connection: &Connection, table: &Table, self_id: i64) -> Result<CaptureState> {
    let names = trigger_names(&table.table_name);
    let ours = triggers(connection, "name IN (?1, ?2, ?3)", &[&names[0], &names[1], &names[2]])?;
    let Some(insert) = ours.iter().find(|t| t.name.eq_ignore_ascii_case(&names[0])) else {
        let table_name = describe(connection, &table.table_name)?.map(|d| d.table_name);
        let made_here = made_here(connection, &table.table_name)?;
        return Ok(CaptureState { table_name, columns: None, intact: false, suspect: true, made_here: Some(made_here) });
    };
    let on_table = triggers(connection, "tbl_name = ?1 COLLATE NOCASE", &[&insert.table_name])?;
    let oldest_of_ours = ours.iter().map(|t| t.age).min().unwrap_or(0);
    let is_ours = |t: &Trigger| names.iter().any(|n| n.eq_ignore_ascii_case(&t.name));
    // SQLite fires the youngest first, and ours have to be first.
    let overtaken = on_table.iter().any(|t| !is_ours(t) && t.age > oldest_of_ours);
    let wanted = trigger_statements(table, self_id);
    let as_wanted = ours.len() == 3 && wanted.iter().all(|w| ours.iter().any(|t| t.sql == *w));
    Ok(CaptureState {
        table_name: Some(insert.table_name.clone()),
        columns: Some(captured_columns(&insert.sql)),
        intact: as_wanted && !overtaken,
        suspect: ours.len() < 3 || overtaken,
        made_here: Some(made_here(connection, &insert.table_name)?),
    })
}

/// ALTER TABLE ... RENAME puts the name between quotation marks, whatever it is: without them the table was made under it.
fn made_here(connection: &Connection, table_name: &str) -> Result<bool> {
    let sql = "SELECT substr(sql, 1, 14) <> 'CREATE TABLE \"' FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let made_here = connection.query_row(sql, [table_name], |row| row.get(0)).optional();
    made_here.map(Option::unwrap_or_default).map_err(engine)
}

fn triggers(connection: &Connection, condition: &str, parameters: &[&String]) -> Result<Vec<Trigger>> {
    let sql = format!("SELECT name, tbl_name, sql, rowid FROM sqlite_schema WHERE type = 'trigger' AND {condition}");
    let mut statement = connection.prepare(&sql).map_err(engine)?;
    let rows = statement.query_map(rusqlite::params_from_iter(parameters), |row| {
        Ok(Trigger { name: row.get(0)?, table_name: row.get(1)?, sql: row.get(2)?, age: row.get(3)? })
    });
    rows.and_then(Iterator::collect).map_err(engine)
}

/// The columns that an insert trigger logs, in order. RENAME COLUMN rewrites the names inside the trigger.
fn captured_columns(sql: &str) -> Vec<String> {
    let mut columns = Vec::new();
    let mut rest = sql.split_once("INSERT INTO _sync_log_data").map_or("", |(_, rest)| rest);
    while let Some((_, after)) = rest.split_once("NEW.\"") {
        let mut name = String::new();
        let mut chars = after.char_indices().peekable();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' if chars.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
                '"' => {
                    end = at + 1;
                    break;
                }
                other => name.push(other),
            }
        }
        columns.push(name);
        rest = &after[end..];
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::captured_columns;

    #[test]
    fn captured_columns_are_read_off_the_trigger() {
        let sql = r#"CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT RAISE(ABORT, 'no') WHERE NEW."k" IS NULL;
                     INSERT INTO _sync_log_data (c1) VALUES (NEW."k", NEW."a ""b"" c"); END"#;
        assert_eq!(captured_columns(sql), ["k", "a \"b\" c"]);
    }
}
