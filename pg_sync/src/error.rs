//! PostgreSQL's errors in the core's words, and the core's in PostgreSQL's.
//!
//! An error of the core is raised with the contract's SQLSTATE and its data as DETAIL; one of the server keeps its own.

use crate::quote::sqlstate_name;
use crate::transaction::last_code;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{PgLogLevel, PgSqlErrorCode};
use sync_shared::{EngineError, Error, Kind, Scope};

/// Raises an error; the statement ends here.
pub fn raise(error: Error) -> ! {
    let (code, message, data) = match error {
        Error::Sync(error) => (code_of(error.kind), format!("sync: {}: {}", error.kind.name(), error.message), error.data),
        Error::Engine(engine) => (PgSqlErrorCode::from(engine.number), engine.message, None),
    };
    let mut report = ErrorReport::new(code, message, "pg_sync");
    if let Some(data) = data {
        report = report.set_detail(data);
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an error was reported and did not end the statement")
}

/// Keeps what a client sees of an error to what the error says: no stack of ours is taken for it, which also costs much where rows are
/// refused. Only a panic that is none of the server's errors is described, in the server's log.
pub fn take_no_stacks() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        if !(payload.is::<CaughtError>() || payload.is::<ErrorReport>() || payload.is::<ErrorReportWithLevel>()) {
            eprintln!("pg_sync: {panic}");
        }
    }));
}

/// What the server has raised, as the core sees it.
pub fn caught(error: Box<CaughtError>) -> EngineError {
    match *error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => engine(&report),
        panic @ CaughtError::RustPanic { .. } => panic.rethrow(),
    }
}

fn engine(report: &ErrorReportWithLevel) -> EngineError {
    let number = match report.sql_error_code() {
        // Also what pgrx has no name for.
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR if is_error(last_code()) => last_code(),
        known => known as i32,
    };
    let code = sqlstate_name(number);
    let message = match report.detail() {
        Some(detail) => format!("{} ({detail})", report.message()),
        None => report.message().to_owned(),
    };
    EngineError { number, scope: scope(&code), kind: kind(&code), code, message }
}

/// What concerns the whole call is named: the connection and its transaction, a deadlock or a failed serialization, what the server has run
/// out of, a lock that was not to be had, an operator's intervention, and the server's own failures. Everything else is the row's, whatever
/// code a trigger of the user's raises.
fn scope(code: &str) -> Scope {
    match (&code[..2], code) {
        ("08" | "25" | "28" | "3D" | "40" | "53" | "57" | "58" | "72" | "F0" | "XX", _) | (_, "55006" | "55P03") => Scope::Call,
        _ => Scope::Row,
    }
}

/// Is it neither success nor a warning, whose classes are 00, 01 and 02?
fn is_error(number: i32) -> bool {
    !matches!(&sqlstate_name(number)[..2], "00" | "01" | "02")
}

fn kind(code: &str) -> &'static str {
    match code {
        "23503" => "ForeignKeyViolation",
        "23505" | "23P01" => "UniqueViolation",
        "23502" => "NotNullViolation",
        "23514" | "44000" => "CheckViolation",
        "42501" => "PermissionDenied",
        "42804" => "TypeMismatch",
        _ if code.starts_with("22") => "TypeMismatch",
        _ => "ConstraintViolation",
    }
}

fn code_of(kind: Kind) -> PgSqlErrorCode {
    match kind {
        Kind::NotInitialized | Kind::TableNotTracked | Kind::FullResyncRequired | Kind::EpochMismatch => {
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
        }
        Kind::TableNotFound => PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
        Kind::UnsupportedTable => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        Kind::InvalidArgument | Kind::InvalidBatch => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        Kind::LimitExceeded => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Kind::HashMismatch => PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        Kind::UnresolvedConflict => PgSqlErrorCode::ERRCODE_TRANSACTION_ROLLBACK,
        Kind::SchemaMismatch => PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        Kind::PermissionDenied => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
    }
}
