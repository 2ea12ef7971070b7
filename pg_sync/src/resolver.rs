//! Custom resolvers: a function `(local jsonb, remote jsonb) returns jsonb`, run with the caller's rights.
//!
//! It is the table owner's to choose: a name without a schema is one in `public`, whatever the caller's search path is.

use crate::definer::SafePath;
use crate::spi::{self, Parameter, View};
use crate::transaction::in_subtransaction;
use sync_shared::{Error, Result, ValueRef};

/// The quoted name of the function that is meant.
pub fn find(resolver: &str) -> Result<String> {
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, p.proname) FROM pg_catalog.pg_proc AS p \
               JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
               WHERE p.oid = pg_catalog.to_regprocedure($1) AND p.prorettype = 'pg_catalog.jsonb'::pg_catalog.regtype";
    let signature = Parameter::of(ValueRef::Text(&format!("{resolver}(jsonb, jsonb)")))?;
    let found = in_subtransaction(|| {
        let _path = SafePath::with_public();
        spi::run(sql, &[signature], View::Latest, |rows| if rows.len() > 0 { rows.row(0).map(Some) } else { Ok(None) })
    });
    match found {
        Ok(Ok((_, Some(row)))) => sync_shared::Row::text(&row, 0).map(str::to_owned),
        _ => {
            let message = format!("there is no function {resolver}(jsonb, jsonb) that returns jsonb; name it with its schema, unless that is public");
            Err(Error::argument(message))
        }
    }
}

/// Runs a resolver; `null` means that the row is to be deleted.
pub fn run(resolver: &str, local: &str, remote: &str) -> Result<String> {
    let function = find(resolver)?;
    let side = |side| Parameter::of(if side == "null" { ValueRef::Null } else { ValueRef::Text(side) });
    let sides = [side(local)?, side(remote)?];
    let answer = in_subtransaction(|| {
        let sql = format!("SELECT {function}($1::pg_catalog.jsonb, $2::pg_catalog.jsonb)::pg_catalog.text");
        spi::run(&sql, &sides, View::Statement, |rows| rows.row(0))
    });
    match answer {
        Ok(row) => Ok(sync_shared::Row::optional_text(&row?.1, 0)?.unwrap_or_else(|| "null".to_owned())),
        Err(error) => Err(error.into()),
    }
}
