//! The triggers on a table that are not ours, those of the database and the temporary ones of this connection.

use crate::capture::trigger_names;
use crate::host::SqliteHost;
use sync_shared::{Result, Row as _, ValueRef};

/// The texts of a table's triggers besides ours.
pub fn others(host: &mut SqliteHost<'_>, table_name: &str) -> Result<Vec<String>> {
    let names = trigger_names(table_name);
    let parameters = [table_name, &names[0], &names[1], &names[2]].map(ValueRef::Text);
    let sql = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE AND name COLLATE NOCASE NOT IN (?2, ?3, ?4)";
    let mut others = texts(host, sql, &parameters)?;
    others.extend(temporary(host, table_name)?);
    Ok(others)
}

/// Has this connection any temporary trigger?
pub fn any_temporary(host: &mut SqliteHost<'_>) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_temp_schema WHERE type = 'trigger' LIMIT 1";
    Ok(has_temporary_schema(host)? && host.statements.integer(sql, &[])?.is_some())
}

/// A finding on temporary triggers of this connection: they fire before ours, so what one of them makes of a row is logged before the row.
pub fn note_on_temporary(host: &mut SqliteHost<'_>, table_name: &str) -> Result<Option<(String, String, String)>> {
    let harmful = temporary(host, table_name)?.iter().any(|sql| changes_again(sql, table_name));
    Ok(harmful.then(|| {
        let message = "a temporary trigger of this connection writes to the table again; it fires before the change is recorded, which is then \
                       taken for the newer";
        let fix = "create the trigger in the database itself, or call sync_reconcile after the writes of such a connection";
        ("TemporaryTrigger".to_owned(), message.to_owned(), fix.to_owned())
    }))
}

fn temporary(host: &mut SqliteHost<'_>, table_name: &str) -> Result<Vec<String>> {
    let sql = "SELECT sql FROM sqlite_temp_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE";
    match has_temporary_schema(host)? {
        true => texts(host, sql, &[ValueRef::Text(table_name)]),
        false => Ok(Vec::new()),
    }
}

fn texts(host: &mut SqliteHost<'_>, sql: &str, parameters: &[ValueRef<'_>]) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    host.statements.query(sql, parameters, &mut |row| {
        texts.push(row.text(0)?.to_owned());
        Ok(true)
    })?;
    Ok(texts)
}

/// To ask for the temporary schema would make one, and then a checkpoint after a change to WAL mode fails.
fn has_temporary_schema(host: &mut SqliteHost<'_>) -> Result<bool> {
    Ok(host.statements.integer("SELECT 1 FROM pragma_database_list WHERE name = 'temp'", &[])?.is_some())
}

/// Does an AFTER trigger write to a table, as far as its words tell?
fn changes_again(sql: &str, table_name: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let (all, name) = (words(sql), words(table_name));
    let Some(begin) = all.iter().position(|word| word == "begin") else { return false };
    let (head, body) = all.split_at(begin);
    let is_target = |at: usize| match body[..at].strip_suffix(&["main".to_owned()]).unwrap_or(&body[..at]) {
        [.., verb] if verb == "update" || verb == "into" => true,
        [.., verb, from] if verb == "delete" && from == "from" => true,
        [.., verb, or, _] if verb == "update" && or == "or" => true,
        _ => false,
    };
    head.iter().any(|word| word == "after") && (0..body.len()).any(|at| body[at..].starts_with(&name) && is_target(at))
}

#[cfg(test)]
mod tests {
    use super::changes_again;

    #[test]
    fn a_trigger_that_writes_to_its_table_is_told_from_one_that_does_not() {
        for body in ["UPDATE t SET v = 1", "update or replace main.\"T\" SET v = 1", "INSERT INTO [t] VALUES (1)", "DELETE FROM `t`"] {
            assert!(changes_again(&format!("CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN {body}; END"), "t"), "{body}");
        }
        for body in ["UPDATE t_log SET t = 1", "INSERT INTO log SELECT * FROM t", "SELECT t FROM t"] {
            assert!(!changes_again(&format!("CREATE TEMP TRIGGER t AFTER INSERT ON t BEGIN {body}; END"), "t"), "{body}");
        }
        assert!(!changes_again("CREATE TEMP TRIGGER x BEFORE INSERT ON t BEGIN UPDATE t SET v = 1; END", "t"));
    }
}
