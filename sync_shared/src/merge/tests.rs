//! Merging field by field: what it makes of two rows depends on what the sides did, not on which of them is asked.

use super::*;
use proptest::prelude::*;

const COLUMNS: usize = 5;

type Fields = Vec<Option<Value>>;

/// A row; few values, so that the sides often say the same, and fields that a row does not name.
fn row() -> impl Strategy<Value = Fields> {
    prop::collection::vec(prop_oneof![1 => Just(None), 4 => (0i64..3).prop_map(|i| Some(Value::Integer(i)))], COLUMNS)
}

proptest! {
    #[test]
    fn both_sides_make_the_same_row(a in row(), b in row(), base in prop::option::of(row()), b_is_newer in any::<bool>()) {
        let here = merge_fields(&a, &b, base.as_deref(), b_is_newer);
        let there = merge_fields(&b, &a, base.as_deref(), !b_is_newer);
        prop_assert_eq!(here, there);
    }

    #[test]
    fn every_field_follows_the_rule(a in row(), b in row(), base in prop::option::of(row()), b_is_newer in any::<bool>()) {
        let merged = merge_fields(&a, &b, base.as_deref(), b_is_newer);
        for column in 0..COLUMNS {
            let known = base.as_ref().and_then(|base| base[column].clone());
            let (changed_a, changed_b) = (a[column] != known, b[column] != known);
            let expected = match (&a[column], &b[column]) {
                (None, only) | (only, None) => only,
                _ if known.is_some() && changed_a && !changed_b => &a[column],
                _ if known.is_some() && changed_b && !changed_a => &b[column],
                _ if b_is_newer => &b[column],
                _ => &a[column],
            };
            prop_assert_eq!(&merged[column], expected);
        }
    }

    #[test]
    fn what_one_side_alone_changed_is_kept(base in row(), edits in row()) {
        let edited: Fields = base.iter().zip(&edits).map(|(base, edit)| edit.clone().or(base.clone())).collect();
        for newer in [false, true] {
            let unedited = base.clone();
            prop_assert_eq!(&merge_fields(&edited, &unedited, Some(&base), newer), &edited);
            prop_assert_eq!(&merge_fields(&unedited, &edited, Some(&base), newer), &edited);
        }
    }

    #[test]
    fn sides_that_agree_are_not_changed(row in row(), base in prop::option::of(row()), newer in any::<bool>()) {
        prop_assert_eq!(merge_fields(&row, &row, base.as_deref(), newer), row);
    }

    #[test]
    fn rows_are_the_same_when_they_agree_in_what_both_name(a in row(), b in row()) {
        let differs = a.iter().zip(&b).any(|(a, b)| a.is_some() && b.is_some() && a != b);
        prop_assert_eq!(same_row(&a, &b), !differs);
        prop_assert!(!same_row(&a, &[]));
    }
}
