//! Conflicts: two changes of one row whose authors had not seen each other's.
//!
//! The strategy is the table's. Who is the server follows from the direction of the batch, so both sides choose the same winner.

use crate::batch::BatchKind;
use crate::catalog::Catalog;
use crate::change::{Change, Operation};
use crate::error::{Error, Result};
use crate::host::{Host, in_transaction};
use crate::merge::{Sides, custom, merge};
use crate::stamp;
use crate::value::{Value, ValueRef};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    LastWriteWins,
    ServerWins,
    ClientWins,
    Merge,
    Custom,
}

impl Strategy {
    pub const NAMES: &'static str = "last_write_wins, server_wins, client_wins, merge or custom";

    const ALL: [Strategy; 5] =
        [Strategy::LastWriteWins, Strategy::ServerWins, Strategy::ClientWins, Strategy::Merge, Strategy::Custom];

    pub fn name(self) -> &'static str {
        match self {
            Strategy::LastWriteWins => "last_write_wins",
            Strategy::ServerWins => "server_wins",
            Strategy::ClientWins => "client_wins",
            Strategy::Merge => "merge",
            Strategy::Custom => "custom",
        }
    }

    pub fn named(name: &str) -> Option<Strategy> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// A custom strategy needs a resolver that can be run.
    pub fn check_resolver(self, host: &mut dyn Host, resolver: Option<&str>) -> Result<()> {
        match (self, resolver) {
            (Strategy::Custom, None) => Err(Error::argument("the strategy custom needs a resolver")),
            (Strategy::Custom, Some(resolver)) => host.check_resolver(resolver),
            _ => Ok(()),
        }
    }
}

/// Sets a table's strategy and returns its name.
pub fn set_conflict_strategy(host: &mut dyn Host, table_name: &str, strategy: &str, resolver: Option<&str>) -> Result<String> {
    let wanted = Strategy::named(strategy)
        .ok_or_else(|| Error::argument(format!("there is no strategy {strategy:?}; it is one of {}", Strategy::NAMES)))?;
    in_transaction(host, |host| {
        let (_, catalog) = Catalog::open(host)?;
        let table = &catalog.tables[catalog.by_name(host, table_name)?];
        let resolver = resolver.or(table.resolver.as_deref());
        wanted.check_resolver(host, resolver)?;
        let kept = resolver.filter(|_| wanted == Strategy::Custom);
        host.execute(
            "UPDATE _sync_tables SET conflict_strategy = ?2, resolver = ?3 WHERE table_id = ?1",
            &[ValueRef::Integer(table.id), ValueRef::Text(wanted.name()), kept.map_or(ValueRef::Null, ValueRef::Text)],
        )?;
        Ok(wanted.name().to_owned())
    })
}

/// How a conflict ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Local,
    Remote,
    /// A third row, by column of the table; None deletes it.
    Merged(Option<Vec<Option<Value>>>),
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Verdict::Local => "local",
            Verdict::Remote => "remote",
            Verdict::Merged(_) => "merged",
        }
    }
}

/// Lets the strategy decide.
pub fn decide(host: &mut dyn Host, sides: &Sides<'_>, strategy: Strategy) -> Result<Verdict> {
    Ok(match strategy {
        Strategy::ServerWins => whole(sides, side_of(sides, BatchKind::Pull)),
        Strategy::ClientWins => whole(sides, side_of(sides, BatchKind::Push)),
        Strategy::LastWriteWins => whole(sides, last_write(sides)),
        Strategy::Merge => whole(sides, merge(sides)),
        Strategy::Custom => custom(host, sides)?,
    })
}

/// A winner may be older than a column that the loser names. There the loser's value is the only one, and the winner's side is told of it: else
/// the two would differ for good. Only a pushed winner needs nothing, for it is sent back as the row that it has become.
fn whole(sides: &Sides<'_>, verdict: Verdict) -> Verdict {
    let (winner, loser) = match verdict {
        Verdict::Local => (sides.local_values, sides.remote_values),
        Verdict::Remote if sides.direction == BatchKind::Pull => (sides.remote_values, sides.local_values),
        other => return other,
    };
    let fields = || winner.iter().zip(loser);
    // A delete has no values.
    match fields().any(|(winner, loser)| winner.is_none() && loser.is_some()) {
        true => Verdict::Merged(Some(fields().map(|(winner, loser)| winner.clone().or_else(|| loser.clone())).collect())),
        false => verdict,
    }
}

/// The side that sends batches in this direction: the server's come by pulls, a client's by pushes.
fn side_of(sides: &Sides<'_>, sends: BatchKind) -> Verdict {
    if sides.direction == sends { Verdict::Remote } else { Verdict::Local }
}

/// The greater stamp; full ties by origin, so that every replica chooses the same.
pub fn last_write(sides: &Sides<'_>) -> Verdict {
    let local = (sides.local.stamp, sides.local.origin.as_ref());
    let remote = (sides.remote.stamp, sides.remote.origin.as_ref());
    if remote > local { Verdict::Remote } else { Verdict::Local }
}

/// Both sides say the same: there is nothing to decide.
pub fn agree(sides: &Sides<'_>) -> bool {
    let deleted = |change: &Change<'_>| change.operation == Operation::Delete;
    match (deleted(sides.local), deleted(sides.remote)) {
        (true, true) => true,
        (false, false) => {
            let mut pairs = sides.remote_values.iter().zip(sides.local_values);
            pairs.all(|(remote, local)| remote.is_none() || remote == local)
        }
        _ => false,
    }
}

/// A conflict that was decided, for `_sync_conflicts`.
pub struct Conflict {
    table_name: String,
    pk_value: String,
    /// JSON of both changes.
    local: String,
    remote: String,
    winner: &'static str,
    strategy: Strategy,
}

impl Conflict {
    pub fn new(sides: &Sides<'_>, verdict: &Verdict, strategy: Strategy) -> Conflict {
        Conflict {
            table_name: sides.table.name.clone(),
            pk_value: sides.local.pk_value.to_string(),
            local: sides.local.to_json(),
            remote: sides.remote.to_json(),
            winner: verdict.name(),
            strategy,
        }
    }

    pub fn record(&self, host: &mut dyn Host) -> Result<()> {
        let now = stamp::format(host.now());
        host.execute(
            "INSERT INTO _sync_conflicts (table_name, pk_value, local_change, remote_change, winner, strategy, detected_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &[
                ValueRef::Text(&self.table_name),
                ValueRef::Text(&self.pk_value),
                ValueRef::Text(&self.local),
                ValueRef::Text(&self.remote),
                ValueRef::Text(self.winner),
                ValueRef::Text(self.strategy.name()),
                ValueRef::Text(&now),
            ],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
