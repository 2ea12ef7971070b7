//! Whoever looks at a conflict sees the same winner: a client that pulls and its server that is pushed to.

use super::*;
use crate::conflict::Strategy;
use crate::table::tests::table;
use crate::table::{Column, Storage};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use std::borrow::Cow;

const ORIGINS: [&str; 3] =
    ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002", "f0000000-0000-4000-8000-000000000001"];

type Values = [Option<Value>];

fn change_of(version: i64, operation: Operation, origin: &'static str, stamp: i64) -> Change<'static> {
    Change {
        version,
        table_name: Cow::Borrowed("t"),
        pk_value: Cow::Borrowed("{\"id\":1}"),
        operation,
        payload: (operation != Operation::Delete).then_some(Cow::Borrowed("{\"id\":1}")),
        origin: Cow::Borrowed(origin),
        stamp,
        contested: false,
        seen_version: None,
    }
}

/// Few stamps and origins, so that ties are common.
fn change() -> impl proptest::strategy::Strategy<Value = Change<'static>> {
    let operations = prop::sample::select(vec![Operation::Insert, Operation::Update, Operation::Delete]);
    (1i64..4, operations, prop::sample::select(ORIGINS.to_vec()), 0i64..3)
        .prop_map(|(version, operation, origin, stamp)| change_of(version, operation, origin, stamp))
}

/// Judges a conflict as the receiver of `remote` has it.
fn judged<T>(
    direction: BatchKind,
    (local, local_values): (&Change<'_>, &Values),
    (remote, remote_values): (&Change<'_>, &Values),
    judge: impl Fn(&Sides<'_>) -> T,
) -> T {
    let table = table(["id", "a"].map(|name| Column::new(name, "", Storage::Any)).to_vec(), &[0]);
    judge(&Sides { table: &table, direction, local, local_values, remote, remote_values, base: None })
}

fn last_of(local: &Change<'_>, remote: &Change<'_>) -> Verdict {
    judged(BatchKind::Pull, (local, &[]), (remote, &[]), last_write)
}

proptest! {
    #[test]
    fn a_client_and_its_server_choose_the_same_change(of_client in change(), of_server in change()) {
        prop_assume!(of_client.origin != of_server.origin);
        let at_client = |judge: fn(&Sides<'_>) -> Verdict| judged(BatchKind::Pull, (&of_client, &[]), (&of_server, &[]), judge);
        let at_server = |judge: fn(&Sides<'_>) -> Verdict| judged(BatchKind::Push, (&of_server, &[]), (&of_client, &[]), judge);
        let rules: [fn(&Sides<'_>) -> Verdict; 3] =
            [last_write, |sides| side_of(sides, BatchKind::Pull), |sides| side_of(sides, BatchKind::Push)];
        for rule in rules {
            let both = (at_client(rule), at_server(rule));
            prop_assert!(matches!(both, (Verdict::Local, Verdict::Remote) | (Verdict::Remote, Verdict::Local)));
        }
        prop_assert_eq!(at_client(rules[1]), Verdict::Remote);
        prop_assert_eq!(at_client(rules[2]), Verdict::Local);
    }

    #[test]
    fn the_last_write_has_the_greater_stamp_and_of_equal_ones_the_greater_origin(local in change(), remote in change()) {
        let remote_wins = last_of(&local, &remote) == Verdict::Remote;
        if local.stamp != remote.stamp {
            prop_assert_eq!(remote_wins, remote.stamp > local.stamp);
        } else if local.origin != remote.origin {
            prop_assert_eq!(remote_wins, remote.origin > local.origin);
        } else {
            prop_assert!(!remote_wins, "what is here already was written again");
        }
    }

    #[test]
    fn the_last_write_of_many_does_not_depend_on_their_order(changes in prop::collection::vec(change(), 1..6), turn in 0usize..6) {
        let last = |changes: &[Change<'static>]| {
            let last = changes.iter().reduce(|local, remote| if last_of(local, remote) == Verdict::Remote { remote } else { local });
            last.map(|change| (change.stamp, change.origin.clone()))
        };
        let mut turned = changes.clone();
        turned.rotate_left(turn % changes.len());
        prop_assert_eq!(last(&changes), last(&turned));
        turned.reverse();
        prop_assert_eq!(last(&changes), last(&turned));
    }
}

#[test]
fn two_deletes_agree_and_a_delete_and_an_update_do_not() {
    let (delete, update) = (change_of(1, Operation::Delete, ORIGINS[0], 0), change_of(1, Operation::Update, ORIGINS[1], 0));
    let row = |a: i64| vec![Some(Value::Integer(1)), Some(Value::Integer(a))];
    let partial = vec![Some(Value::Integer(1)), None];
    let agreed = |local: (&Change<'_>, &Values), remote: (&Change<'_>, &Values)| judged(BatchKind::Push, local, remote, agree);
    assert!(agreed((&delete, &[]), (&delete, &[])));
    assert!(!agreed((&delete, &[]), (&update, &row(1))) && !agreed((&update, &row(1)), (&delete, &[])));
    assert!(agreed((&update, &row(1)), (&update, &row(1))) && agreed((&update, &row(1)), (&update, &partial)));
    assert!(!agreed((&update, &row(1)), (&update, &row(2))));
}

#[test]
fn a_strategy_is_found_by_its_name() {
    for strategy in Strategy::ALL {
        assert_eq!(Strategy::named(strategy.name()), Some(strategy));
        assert!(Strategy::NAMES.contains(strategy.name()));
    }
    assert_eq!(Strategy::named("Last_Write_Wins"), None);
}
