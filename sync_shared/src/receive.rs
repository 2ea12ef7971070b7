//! Which versions of a sender's log were received: a push that arrives twice changes nothing.

use crate::error::Result;
use crate::host::Host;
use crate::value::ValueRef;

/// What was received from one sender in one epoch.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// (from, to], and the newest stamp of what they brought; in order, none touching the next.
    ranges: Vec<(i64, i64, i64)>,
}

impl Received {
    pub fn load(host: &mut dyn Host, sender: i64, epoch: &str) -> Result<Received> {
        let mut ranges = Vec::new();
        host.query(
            "SELECT from_version, to_version, newest_stamp FROM _sync_received WHERE sender = ?1 AND epoch = ?2 ORDER BY from_version",
            &[ValueRef::Integer(sender), ValueRef::Text(epoch)],
            &mut |row| {
                ranges.push((row.integer(0)?, row.integer(1)?, row.integer(2)?));
                Ok(true)
            },
        )?;
        Ok(Received { ranges })
    }

    /// Was this change received before? A change under a known version that is newer than anything received then is none of them:
    /// the sender was restored from a backup and went on, and nothing of it may be lost.
    pub fn contains(&self, version: i64, stamp: i64) -> bool {
        self.ranges.iter().any(|&(from, to, newest)| from < version && version <= to && stamp <= newest)
    }
}

/// Notes that `from < version <= to` was received, joined with what it touches.
pub fn note_received(
    host: &mut dyn Host,
    (sender, epoch): (i64, &str),
    (from, to): (i64, i64),
    newest_stamp: i64,
) -> Result<()> {
    if from >= to {
        return Ok(());
    }
    let known = Received::load(host, sender, epoch)?;
    let touches = |range: &&(i64, i64, i64)| range.0 <= to && from <= range.1;
    let joined = known
        .ranges
        .iter()
        .filter(touches)
        .fold((from, to, newest_stamp), |a, r| (a.0.min(r.0), a.1.max(r.1), a.2.max(r.2)));
    if known.ranges.contains(&joined) {
        return Ok(());
    }
    let key = [ValueRef::Integer(sender), ValueRef::Text(epoch)];
    host.execute(
        "DELETE FROM _sync_received WHERE sender = ?1 AND epoch = ?2 AND from_version <= ?3 AND to_version >= ?4",
        &[key[0], key[1], ValueRef::Integer(to), ValueRef::Integer(from)],
    )?;
    host.execute(
        "INSERT INTO _sync_received (sender, epoch, from_version, to_version, newest_stamp) VALUES (?1, ?2, ?3, ?4, ?5)",
        &[key[0], key[1], ValueRef::Integer(joined.0), ValueRef::Integer(joined.1), ValueRef::Integer(joined.2)],
    )?;
    Ok(())
}

/// Up to which version everything of a sender was received, and the newest stamp of it; version 0 if nothing was.
pub fn received_version(host: &mut dyn Host, sender: i64) -> Result<(i64, Option<i64>)> {
    let mut received = (0, None);
    host.query(
        "SELECT to_version, newest_stamp FROM _sync_received WHERE sender = ?1 AND from_version = 0 ORDER BY to_version DESC",
        &[ValueRef::Integer(sender)],
        &mut |row| {
            received = (row.integer(0)?, Some(row.integer(1)?).filter(|&stamp| stamp > i64::MIN));
            Ok(false)
        },
    )?;
    Ok(received)
}
