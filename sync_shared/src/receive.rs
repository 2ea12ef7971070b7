//! Which versions of a sender's log were received: a push that arrives twice changes nothing.
//!
//! Marks tell the sender from a copy of it, and from itself after it was restored, which use the same versions for other changes.

use crate::batch::{MAX_MARKS, Mark};
use crate::error::Result;
use crate::host::Host;
use crate::value::ValueRef;

/// Marks that are kept of a sender.
const KEPT_MARKS: i64 = 1000;

/// `from < version <= to` of a sender's log, received in one batch or in several that touch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub from: i64,
    pub to: i64,
    pub newest_stamp: i64,
}

impl Range {
    fn touches(&self, other: &Range) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    fn join(self, other: &Range) -> Range {
        Range { from: self.from.min(other.from), to: self.to.max(other.to), newest_stamp: self.newest_stamp.max(other.newest_stamp) }
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
            "SELECT from_version, to_version, newest_stamp FROM _sync_received WHERE sender = ?1 AND epoch = ?2 ORDER BY from_version",
            &[ValueRef::Integer(sender), ValueRef::Text(epoch)],
            &mut |row| {
                ranges.push(Range { from: row.integer(0)?, to: row.integer(1)?, newest_stamp: row.integer(2)? });
                Ok(true)
            },
        )?;
        Ok(Received { ranges })
    }

    /// Was this change received before? Of a batch without marks, a change under a known version that is newer than anything
    /// received then is none of them: the sender was restored from a backup and went on, and nothing of it may be lost.
    pub fn contains(&self, version: i64, stamp: i64, marked: bool) -> bool {
        self.ranges.iter().any(|r| r.from < version && version <= r.to && (marked || stamp <= r.newest_stamp))
    }

    /// Can a batch have been made of the log that was received? By its marks: they are those that are known, and if there are none
    /// for all of it, nothing was received since the newest of them.
    pub fn agrees(&self, (from, to): (i64, i64), marks: &[Mark], known: &[Mark]) -> bool {
        let at = |version: i64| known.iter().find(|mark| mark.version == version);
        if marks.iter().any(|mark| at(mark.version).is_some_and(|known| known != mark)) {
            return false;
        }
        let shared = marks.iter().filter(|mark| known.contains(mark)).map(|mark| mark.version).max().unwrap_or(0).max(from);
        let unmarked = marks.is_empty() || marks.len() == MAX_MARKS;
        unmarked || to <= shared || !self.ranges.iter().any(|r| r.to > shared && at(r.to).is_some())
    }

    /// Adds a range, joined with what it touches; returns the joined one.
    fn add(&mut self, range: Range) -> Range {
        let (touched, apart): (Vec<Range>, Vec<Range>) = self.ranges.drain(..).partition(|known| known.touches(&range));
        let joined = touched.iter().fold(range, Range::join);
        self.ranges = apart;
        self.ranges.insert(self.ranges.partition_point(|known| known.from < joined.from), joined);
        joined
    }
}

/// Notes that a range was received, joined with what it touches.
pub fn note_received(host: &mut dyn Host, (sender, epoch): (i64, &str), range: Range) -> Result<()> {
    if range.from >= range.to {
        return Ok(());
    }
    let mut received = Received::load(host, sender, epoch)?;
    let before = received.ranges.clone();
    let joined = received.add(range);
    if received.ranges == before {
        return Ok(());
    }
    let key = [ValueRef::Integer(sender), ValueRef::Text(epoch)];
    host.execute(
        "DELETE FROM _sync_received WHERE sender = ?1 AND epoch = ?2 AND from_version <= ?3 AND to_version >= ?4",
        &[key[0], key[1], ValueRef::Integer(range.to), ValueRef::Integer(range.from)],
    )?;
    host.execute(
        "INSERT INTO _sync_received (sender, epoch, from_version, to_version, newest_stamp) VALUES (?1, ?2, ?3, ?4, ?5)",
        &[key[0], key[1], ValueRef::Integer(joined.from), ValueRef::Integer(joined.to), ValueRef::Integer(joined.newest_stamp)],
    )?;
    Ok(())
}

/// The marks of a sender's batches.
pub fn marks_of(host: &mut dyn Host, sender: i64) -> Result<Vec<Mark>> {
    let mut marks = Vec::new();
    host.query("SELECT version, mark FROM _sync_marks WHERE sender = ?1 ORDER BY version", &[ValueRef::Integer(sender)], &mut |row| {
        marks.push(Mark { version: row.integer(0)?, mark: row.text(1)?.to_owned() });
        Ok(true)
    })?;
    Ok(marks)
}

/// Keeps the marks of a batch, and forgets the oldest.
pub fn note_marks(host: &mut dyn Host, sender: i64, marks: &[Mark]) -> Result<()> {
    for Mark { version, mark } in marks {
        host.execute(
            "INSERT INTO _sync_marks (sender, version, mark) VALUES (?1, ?2, ?3) ON CONFLICT (sender, version) DO NOTHING",
            &[ValueRef::Integer(sender), ValueRef::Integer(*version), ValueRef::Text(mark)],
        )?;
    }
    host.execute(
        "DELETE FROM _sync_marks WHERE sender = ?1 AND version < \
         (SELECT version FROM _sync_marks WHERE sender = ?1 ORDER BY version DESC LIMIT 1 OFFSET ?2)",
        &[ValueRef::Integer(sender), ValueRef::Integer(KEPT_MARKS)],
    )?;
    Ok(())
}

/// Up to which version everything of a sender was received, and the mark of the batch that ended there; version 0 if nothing was.
pub fn received_version(host: &mut dyn Host, sender: i64) -> Result<(i64, Option<String>)> {
    let mut received = (0, None);
    host.query(
        "SELECT r.to_version, m.mark FROM _sync_received AS r LEFT JOIN _sync_marks AS m ON m.sender = r.sender AND m.version = r.to_version \
         WHERE r.sender = ?1 AND r.from_version = 0 ORDER BY r.to_version DESC",
        &[ValueRef::Integer(sender)],
        &mut |row| {
            received = (row.integer(0)?, row.optional_text(1)?);
            Ok(false)
        },
    )?;
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn received(ranges: &[(i64, i64, i64)]) -> Received {
        let mut received = Received::default();
        for &(from, to, newest_stamp) in ranges {
            received.add(Range { from, to, newest_stamp });
        }
        received
    }

    /// Ranges as a sender's batches have them: (from, to], and the newest stamp of each.
    fn ranges() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
        prop::collection::vec((0i64..40, 1i64..12, 0i64..100).prop_map(|(from, length, stamp)| (from, from + length, stamp)), 0..12)
    }

    proptest! {
        #[test]
        fn what_arrived_in_any_range_is_received_and_nothing_else(ranges in ranges(), version in 0i64..60) {
            let covered = ranges.iter().any(|&(from, to, _)| from < version && version <= to);
            prop_assert_eq!(received(&ranges).contains(version, i64::MIN, false), covered);
            prop_assert_eq!(received(&ranges).contains(version, 100, false), false);
            prop_assert_eq!(received(&ranges).contains(version, 100, true), covered);
        }

        #[test]
        fn a_change_is_received_though_ranges_are_joined_later(ranges in ranges(), place in any::<prop::sample::Index>()) {
            prop_assume!(!ranges.is_empty());
            let (from, to, stamp) = ranges[place.index(ranges.len())];
            let all = received(&ranges);
            prop_assert!((from + 1..=to).all(|version| all.contains(version, stamp, false)));
        }

        #[test]
        fn ranges_are_in_order_and_none_touches_the_next(ranges in ranges()) {
            let received = received(&ranges);
            prop_assert!(received.ranges.windows(2).all(|pair| pair[0].to < pair[1].from));
        }

        #[test]
        fn the_order_of_arrival_makes_no_difference((ranges, shuffled) in ranges().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle()))) {
            prop_assert_eq!(received(&shuffled).ranges, received(&ranges).ranges);
        }

        #[test]
        fn what_arrives_twice_changes_nothing(ranges in ranges()) {
            let twice: Vec<_> = ranges.iter().chain(&ranges).copied().collect();
            prop_assert_eq!(received(&twice).ranges, received(&ranges).ranges);
        }
    }

    fn marks(of: &[(i64, &str)]) -> Vec<Mark> {
        of.iter().map(|&(version, mark)| Mark { version, mark: mark.to_owned() }).collect()
    }

    #[test]
    fn the_marks_of_a_copy_are_told_from_those_of_the_sender() {
        let known = marks(&[(5, "a"), (9, "b")]);
        let received = received(&[(0, 5, 0), (5, 9, 0)]);
        let agrees = |from, to, of: &[(i64, &str)]| received.agrees((from, to), &marks(of), &known);
        assert!(agrees(0, 5, &[(5, "a")]), "the same batch again");
        assert!(agrees(5, 9, &[(9, "b")]), "the same batch again");
        assert!(agrees(9, 12, &[(12, "c")]), "the next");
        assert!(agrees(5, 12, &[(9, "b"), (12, "c")]), "the next, after an answer was lost");
        assert!(agrees(5, 7, &[(7, "c"), (9, "b")]), "a smaller one that was made later");
        assert!(agrees(5, 9, &[]), "a batch without marks");
        assert!(!agrees(5, 9, &[(9, "x")]), "another batch with the same end");
        assert!(!agrees(5, 7, &[(7, "x")]), "a batch that ends within what was received");
        assert!(!agrees(0, 7, &[(5, "a"), (7, "x")]), "the same, of a copy that was made later");
        assert!(!agrees(5, 12, &[(12, "x")]), "a batch that does not know of what was received");
    }
}
