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

    /// Adds a range, joined with what it touches; returns the joined one.
    fn add(&mut self, range: Range) -> Range {
        let (touched, apart): (Vec<Range>, Vec<Range>) = self.ranges.drain(..).partition(|known| known.touches(&range));
        let joined = touched.iter().fold(range, Range::join);
        self.ranges = apart;
        self.ranges.insert(self.ranges.partition_point(|known| known.from < joined.from), joined.clone());
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
    let joined = received.add(range.clone());
    if received.ranges == before {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn received(ranges: &[(i64, i64, i64)]) -> Received {
        let mut received = Received::default();
        for &(from, to, clock) in ranges {
            received.add(Range { from, to, clock, mark: Some(to.to_string()) });
        }
        received
    }

    /// Ranges as a sender's batches have them: (from, to], and the sender's clock.
    fn ranges() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
        prop::collection::vec((0i64..40, 1i64..12, 0i64..100).prop_map(|(from, length, stamp)| (from, from + length, stamp)), 0..12)
    }

    proptest! {
        #[test]
        fn what_arrived_in_any_range_is_received_and_nothing_else(ranges in ranges(), version in 0i64..60) {
            let covered = ranges.iter().any(|&(from, to, _)| from < version && version <= to);
            prop_assert_eq!(received(&ranges).contains(version, i64::MIN), covered);
            prop_assert_eq!(received(&ranges).contains(version, 100), false);
        }

        #[test]
        fn a_change_is_received_though_ranges_are_joined_later(ranges in ranges(), place in any::<prop::sample::Index>()) {
            prop_assume!(!ranges.is_empty());
            let (from, to, stamp) = ranges[place.index(ranges.len())];
            let all = received(&ranges);
            prop_assert!((from + 1..=to).all(|version| all.contains(version, stamp)));
        }

        #[test]
        fn ranges_are_in_order_and_none_touches_the_next(ranges in ranges()) {
            let received = received(&ranges);
            prop_assert!(received.ranges.iter().all(|range| range.mark == Some(range.to.to_string())), "the mark is that of the end");
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
}
