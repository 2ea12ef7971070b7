//! A piece of the log as `sync_fetch_changes` gives it, taken apart as far as subscriptions need it: each change keeps its text.

use crate::answer::parse;
use crate::database::{Access, Argument, Database, Statement};
use crate::error::Result;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write as _;

/// The batch for a downstream replica: from version, size, whose changes to leave out.
pub static FETCH: Statement = Statement::new("SELECT @sync_fetch_changes(?1, ?2, ?3)");

/// Changes `from < version <= to` in the order of their versions.
pub struct Page {
    pub from: i64,
    pub to: i64,
    pub has_more: bool,
    pub epoch: String,
    /// Where the log ends.
    pub max_version: i64,
    pub events: Vec<Event>,
}

/// A change as a subscription sends it.
pub struct Event {
    pub version: i64,
    pub table_name: String,
    /// The key as JSON text.
    pub pk_value: String,
    /// The whole event, ready to be sent.
    pub frame: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    from_version: i64,
    to_version: i64,
    has_more: bool,
    max_version: i64,
    #[serde(borrow)]
    changes: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    version: i64,
    #[serde(borrow)]
    table_name: Cow<'a, str>,
    #[serde(borrow)]
    pk_value: Cow<'a, str>,
}

impl Page {
    pub async fn read(database: &Database, role: Option<&str>, from: i64, size: i32) -> Result<Page> {
        let arguments = vec![Argument::Big(from), Argument::Int(size), Argument::Text(None)];
        let text = database.text(Access::Read, role, &FETCH, arguments).await?;
        Page::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Page> {
        let batch: Batch<'_> = parse(text)?;
        let mut events = Vec::with_capacity(batch.changes.len());
        for change in batch.changes {
            let head: Head<'_> = parse(change.get())?;
            let mut frame = String::with_capacity(change.get().len() + 48);
            // A change's text has no line breaks of its own: JSON writes them as \n.
            let _ = write!(frame, "event: change\nid: {}\ndata: {}\n\n", head.version, change.get());
            events.push(Event {
                version: head.version,
                table_name: head.table_name.into_owned(),
                pk_value: head.pk_value.into_owned(),
                frame: Bytes::from(frame),
            });
        }
        Ok(Page {
            from: batch.from_version,
            to: batch.to_version,
            has_more: batch.has_more,
            epoch: batch.epoch.into_owned(),
            max_version: batch.max_version,
            events,
        })
    }
}
