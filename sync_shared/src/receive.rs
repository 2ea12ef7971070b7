//! Which versions of a sender's log were received: a push that arrives twice changes nothing.

use crate::error::Result;
use crate::host::Host;
use crate::value::ValueRef;

/// `from < version <= to` of a sender's log, received in one batch or in several that touch.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    pub from: i64,
    pub to: i64,
    /// The sender's clock: nothing of it was stamped later. Milliseconds since 1970.
    pub clock: i64,
    /// Names the batch that ended at `to`.
    pub mark: Option<String>,
}

impl Range {
    fn touches(&self, other: &Range) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    fn join(self, other: &Range) -> Range {
        let mark = if other.to > self.to { other.mark.clone() } else { self.mark };
        Range { from: self.from.min(other.from), to: self.to.max(other.to), clock: self.clock.max(other.clock), mark }
    }
}

/// What was received from one sender in one epoch.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// In order, none touching the next.
    ranges: Vec<Range>,
}

impl Received {
    pub fn load(host: &mut dyn Host, sender: i64, epoch: &str) -> Result<Received> {
        let mut ranges = Vec::new();
        host.query(
            "SELECT from_version, to_version, clock, mark FROM _sync_received WHERE sender = ?1 AND epoch = ?2 ORDER BY from_version",
            &[ValueRef::Integer(sender), ValueRef::Text(epoch)],
            &mut |row| {
                ranges.push(Range { from: row.integer(0)?, to: row.integer(1)?, clock: row.integer(2)?, mark: row.optional_text(3)? });
                Ok(true)
            },
        )?;
        Ok(Received { ranges })
    }

    /// Was this change received before? A change under a known version that is younger than the batch that brought it is none of
    /// them: the sender was restored from a backup and went on, and nothing of it may be lost.
    pub fn contains(&self, version: i64, stamp: i64) -> bool {
        self.ranges.iter().any(|r| r.from < version && version <= r.to && stamp <= r.clock)
    }
}

/// Notes that a range was received, joined with what it touches.
pub fn note_received(host: &mut dyn Host, (sender, epoch): (i64, &str), range: Range) -> Result<()> {
    if range.from >= range.to {
        return Ok(());
    }
    let known = Received::load(host, sender, epoch)?;
    let joined = known.ranges.iter().filter(|r| r.touches(&range)).fold(range.clone(), Range::join);
    if known.ranges.contains(&joined) {
        return Ok(());
    }
    let key = [ValueRef::Integer(sender), ValueRef::Text(epoch)];
    host.execute(
        "DELETE FROM _sync_received WHERE sender = ?1 AND epoch = ?2 AND from_version <= ?3 AND to_version >= ?4",
        &[key[0], key[1], ValueRef::Integer(range.to), ValueRef::Integer(range.from)],
    )?;
    host.execute(
        "INSERT INTO _sync_received (sender, epoch, from_version, to_version, clock, mark) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        &[
            key[0],
            key[1],
            ValueRef::Integer(joined.from),
            ValueRef::Integer(joined.to),
            ValueRef::Integer(joined.clock),
            joined.mark.as_deref().map_or(ValueRef::Null, ValueRef::Text),
        ],
    )?;
    Ok(())
}

/// Up to which version everything of a sender was received, and the mark of the batch that ended there; version 0 if nothing was.
pub fn received_version(host: &mut dyn Host, sender: i64) -> Result<(i64, Option<String>)> {
    let mut received = (0, None);
    host.query(
        "SELECT to_version, mark FROM _sync_received WHERE sender = ?1 AND from_version = 0 ORDER BY to_version DESC",
        &[ValueRef::Integer(sender)],
        &mut |row| {
            received = (row.integer(0)?, row.optional_text(1)?);
            Ok(false)
        },
    )?;
    Ok(received)
}
