//! A place in a server's log as the one integer that travels: `fromVersion`, `toVersion` and `lastServerVersion`.
//!
//! It is a version, but for a replay from 0 that has not passed the purge horizon yet. A plain version below the horizon is that of
//! a client that may have missed deletes whose tombstones are gone. A replay that began after the purge misses nothing, so its
//! cursors carry the number of the purge: they lie between 2^52 and 2^53, which every JSON parser holds exactly.

use crate::error::{Error, Kind};
use serde_json::json;

const REPLAY: i64 = 1 << 52;
const VERSION_BITS: u32 = 40;
const PURGES: i64 = 1 << 12;

/// How far a replica has followed a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub version: i64,
    /// Of a replay below the purge horizon: after how many purges it began, modulo 2^12.
    purges: Option<i64>,
}

impl Cursor {
    pub fn at(version: i64) -> Cursor {
        Cursor { version, purges: None }
    }

    /// Where a replay stands that began after so many purges.
    pub fn of_replay(version: i64, purges: i64) -> Cursor {
        match version >> VERSION_BITS {
            0 => Cursor { version, purges: Some(purges % PURGES) },
            _ => Cursor::at(version),
        }
    }

    pub fn from_number(number: i64) -> Cursor {
        match number >> 52 {
            1 => Cursor { version: number & ((1 << VERSION_BITS) - 1), purges: Some((number >> VERSION_BITS) % PURGES) },
            _ => Cursor::at(number),
        }
    }

    pub fn number(self) -> i64 {
        match self.purges {
            Some(purges) => REPLAY | purges << VERSION_BITS | self.version,
            None => self.version,
        }
    }

    /// Is it that of a replay: from the start, or one that has begun after the last of so many purges?
    pub fn is_replay(self, purges: i64) -> bool {
        match self.purges {
            Some(began) => began == purges % PURGES,
            None => self.version == 0,
        }
    }

    /// Did whoever is here see every delete that a log with this horizon has forgotten?
    pub fn is_above(self, horizon: i64) -> bool {
        self.purges.is_none() && self.version >= horizon
    }
}

/// A client's cursor is below the purge horizon: it may have missed deletes.
pub fn full_resync(cursor: Cursor, horizon: i64) -> Error {
    Error::new(
        Kind::FullResyncRequired,
        "deletes after this cursor were purged; call sync_begin_resync() on the client and pull again",
    )
    .with_data(json!({"clientVersion": cursor.version, "oldestVersion": horizon}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back(version in 0i64..1 << 40, purges in 0i64..100_000) {
            let cursor = Cursor::of_replay(version, purges);
            prop_assert_eq!(Cursor::from_number(cursor.number()), cursor);
            prop_assert!((1i64 << 52..1 << 53).contains(&cursor.number()));
            prop_assert_eq!(cursor.version, version);
            prop_assert!(cursor.is_replay(purges) && !cursor.is_replay(purges + 1));
        }

        /// Of a log that has more versions than a replay's cursor can name.
        #[test]
        fn a_replay_that_is_too_far_has_a_plain_cursor(version in prop_oneof![1i64 << 40..1 << 41, 1i64 << 40..1 << 52], purges in 0i64..100_000) {
            prop_assert_eq!(Cursor::of_replay(version, purges), Cursor::at(version));
        }

        #[test]
        fn only_a_plain_cursor_at_the_horizon_or_above_has_seen_every_delete(version in 0i64..100, horizon in 0i64..100, purges in 0i64..100) {
            prop_assert_eq!(Cursor::at(version).is_above(horizon), version >= horizon);
            prop_assert!(!Cursor::of_replay(version, purges).is_above(horizon));
            prop_assert_eq!(Cursor::at(version).is_replay(purges), version == 0);
        }

        #[test]
        fn a_version_is_its_own_cursor(version in 0i64..1 << 52) {
            prop_assert_eq!(Cursor::from_number(version), Cursor::at(version));
            prop_assert_eq!(Cursor::at(version).number(), version);
        }
    }
}
