//! SQLite behind the gateway: one writer and some readers, each a thread with a connection of its own.

use super::{Access, Argument, StartError, Statement};
use crate::error::{ApiError, Result};
use crate::wake::Wake;
use rusqlite::{Connection, OptionalExtension as _, ErrorCode, InterruptHandle, OpenFlags, params_from_iter, types::Value};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the file is looked at for commits of other processes while somebody waits for changes, and while nobody does.
const LOOK: Duration = Duration::from_millis(4);
const LOOK_SELDOM: Duration = Duration::from_millis(200);
/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

struct Job {
    statement: &'static Statement,
    arguments: Vec<Argument>,
    answer: oneshot::Sender<Result<Option<String>>>,
    /// What stops it while it runs.
    running: Arc<Mutex<Option<Arc<InterruptHandle>>>>,
}

/// The threads that one kind of job goes to.
struct Workers {
    jobs: mpsc::Sender<Job>,
}

pub struct Sqlite {
    path: String,
    timeout: Duration,
    writer: Workers,
    readers: Workers,
    wake: Arc<Mutex<Option<Arc<Wake>>>>,
}

impl Sqlite {
    /// `timeout` in seconds.
    pub fn open(path: &str, readers: u16, timeout: u32) -> Result<Sqlite, StartError> {
        let failed = |error: rusqlite::Error| StartError::new(format!("cannot open the database: {error}"));
        let connection = connect(path).map_err(failed)?;
        // Readers go on beside the writer. Where it cannot be had (a file system without shared memory) they wait.
        let _ = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        connection.query_row("SELECT sync_init()", [], |row| row.get::<_, String>(0)).map_err(failed)?;
        let wake: Arc<Mutex<Option<Arc<Wake>>>> = Arc::default();
        let writer = Workers::start(vec![connection], Some(wake.clone()));
        let connections = (0..readers).map(|_| connect(path)).collect::<rusqlite::Result<Vec<_>>>().map_err(failed)?;
        let readers = Workers::start(connections, None);
        Ok(Sqlite { path: path.to_owned(), timeout: Duration::from_secs(timeout.into()), writer, readers, wake })
    }

    pub async fn text(&self, access: Access, statement: &'static Statement, arguments: Vec<Argument>) -> Result<Option<String>> {
        let workers = if access == Access::Write { &self.writer } else { &self.readers };
        let (answer, answered) = oneshot::channel();
        let running: Arc<Mutex<Option<Arc<InterruptHandle>>>> = Arc::default();
        let job = Job { statement, arguments, answer, running: running.clone() };
        workers.jobs.send(job).map_err(|_| ApiError::unavailable("the gateway is stopping"))?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(answer) => answer.map_err(|_| ApiError::internal())?,
            Err(_) => {
                if let Some(handle) = &*lock(&running) {
                    handle.interrupt();
                }
                Err(ApiError::unavailable("the database took too long"))
            }
        }
    }

    /// Runs statements that yield nothing.
    pub async fn execute(&self, script: &'static str) -> Result<()> {
        let path = self.path.clone();
        let run = tokio::task::spawn_blocking(move || connect(&path)?.execute_batch(script));
        run.await.map_err(|_| ApiError::internal())?.map_err(api_error)
    }

    /// Looks for commits of other processes for as long as the process lives.
    pub fn watch(&self, wake: Arc<Wake>) {
        *lock(&self.wake) = Some(wake.clone());
        let path = self.path.clone();
        thread::spawn(move || {
            let mut seen: Option<i64> = None;
            let mut connection = None;
            loop {
                thread::sleep(if wake.is_followed() { LOOK } else { LOOK_SELDOM });
                if connection.is_none() {
                    connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok();
                }
                let version = connection.as_ref().map(|c| c.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)));
                match version {
                    Some(Ok(version)) if seen == Some(version) => {}
                    Some(Ok(version)) => {
                        seen = Some(version);
                        wake.wake(None);
                    }
                    // Busy, or gone: whoever follows looks for itself.
                    _ => connection = None,
                }
            }
        });
    }
}

fn connect(path: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    sqlite_sync::register(&connection)?;
    Ok(connection)
}

impl Workers {
    /// A thread for each connection. `wake` is told of every job that is done.
    fn start(connections: Vec<Connection>, wake: Option<Arc<Mutex<Option<Arc<Wake>>>>>) -> Workers {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for connection in connections {
            let (queue, wake) = (queue.clone(), wake.clone());
            let interrupt = Arc::new(connection.get_interrupt_handle());
            thread::spawn(move || {
                loop {
                    // The lock is held while waiting: the others wait for it.
                    let next = lock(&queue).recv();
                    let Ok(job) = next else { return };
                    if job.answer.is_closed() {
                        continue;
                    }
                    *lock(&job.running) = Some(interrupt.clone());
                    let answer = run(&connection, job.statement, &job.arguments);
                    // From here on nobody stops what this thread does next.
                    *lock(&job.running) = None;
                    let wake = wake.as_ref().and_then(|wake| lock(wake).clone());
                    if let (Some(wake), true) = (wake, answer.is_ok()) {
                        wake.wake(None);
                    }
                    let _ = job.answer.send(answer);
                }
            });
        }
        Workers { jobs }
    }
}

/// No thread leaves these values half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(connection: &Connection, statement: &Statement, arguments: &[Argument]) -> Result<Option<String>> {
    let values = arguments.iter().map(|argument| match argument {
        Argument::Text(text) => text.clone().map_or(Value::Null, Value::Text),
        Argument::Big(number) => Value::Integer(*number),
        Argument::Int(number) => Value::Integer(i64::from(*number)),
        Argument::Bool(truth) => Value::Integer(i64::from(*truth)),
    });
    let mut prepared = connection.prepare(statement.sqlite()).map_err(api_error)?;
    let found = prepared.query_row(params_from_iter(values), |row| row.get(0)).optional();
    Ok(found.map_err(api_error)?.flatten())
}

fn api_error(error: rusqlite::Error) -> ApiError {
    if let rusqlite::Error::SqliteFailure(failure, message) = &error {
        if let Some(sync) = message.as_deref().and_then(|message| ApiError::of_sync(message, None)) {
            return sync;
        }
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => return ApiError::unavailable("the database is busy"),
            ErrorCode::OperationInterrupted => return ApiError::unavailable("the database took too long"),
            ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly => {
                tracing::error!(code = failure.extended_code, "the database cannot write or be read");
                return ApiError::unavailable("the database cannot be written or read");
            }
            _ => tracing::error!(code = failure.extended_code, "the database refused a statement"),
        }
    } else {
        tracing::error!("a statement yielded something else than a text");
    }
    ApiError::internal()
}
