//! A column that numbers itself goes on above the keys that an apply has inserted.

use crate::counter;
use crate::form::Form;
use crate::spi::Parameter;
use crate::tables::TablePlan;

/// Moves the sequences behind the inserted columns past the inserted values.
pub fn advance(plan: &TablePlan, given: &[usize], parameters: &[Parameter]) {
    for (&column, parameter) in given.iter().zip(parameters) {
        let Some(sequence) = plan.sequences[column] else { continue };
        let value = match (&plan.columns[column].form, parameter.datum) {
            (Form::Int2, Some(datum)) => i64::from(datum.value() as i16),
            (Form::Int4, Some(datum)) => i64::from(datum.value() as i32),
            (Form::Int8, Some(datum)) => datum.value() as i64,
            _ => continue,
        };
        counter::raise_sequence(sequence, value);
    }
}
