//! The fence: no fetch passes a change that commits later.
//!
//! Versions are given out before their transactions commit. So before its first version a transaction takes a shared lock whose key is
//! the last version given out until then: everything it will log is above the key. A reader looks at the last version first, then at
//! the smallest key that is held, and only then takes its snapshot: whatever is at or below both is committed and in the snapshot, or
//! was rolled back. Read in another order, each of the three loses changes.
//!
//! The keys are in a lock namespace that SQL cannot reach. The lock belongs to the whole transaction: it outlives a ROLLBACK TO, and a
//! prepared transaction keeps it.
#![allow(unsafe_code)]

use crate::counter::last_version;
use crate::extension::Extension;
use pgrx::pg_sys;
use std::cell::Cell;
use sync_shared::{Error, Kind, Result};

/// `locktag_field4` of our locks; SQL's own advisory locks have 1 and 2.
const VERSION_LOCKS: u16 = 0x5359;
const APPLY_LOCK: u16 = 0x535a;

/// When the oldest transaction of this database that holds readers back began, or was prepared. 21337 is [`VERSION_LOCKS`].
pub const HELD_SINCE: &str = "SELECT floor(extract(epoch FROM min(coalesce(a.xact_start, p.prepared))) * 1000)::bigint FROM pg_locks AS l \
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid \
    LEFT JOIN pg_locks AS x ON l.pid IS NULL AND x.pid IS NULL AND x.virtualtransaction = l.virtualtransaction AND x.locktype = 'transactionid' \
    LEFT JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid \
    WHERE l.locktype = 'advisory' AND l.objsubid = 21337 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

fn tag(key: i64, namespace: u16) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: set once, when the backend starts.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: (key >> 32) as u32,
        locktag_field3: key as u32,
        locktag_field4: namespace,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

fn lock(key: i64, namespace: u16, mode: u32) {
    let tag = tag(key, namespace);
    // SAFETY: the server copies the tag.
    for_transaction(|| unsafe {
        pg_sys::LockAcquire(&tag, mode as i32, false, false);
    });
}

/// What is locked is held by the transaction, not by the subtransaction that happens to run.
fn for_transaction(body: impl FnOnce()) {
    // SAFETY: plain state of the backend, which the server puts back itself after an error.
    unsafe {
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        body();
        pg_sys::CurrentResourceOwner = owner;
    }
}

/// Before a version is taken: this transaction holds back every reader from what it is about to log. It locks the log and the counters
/// as well, once for all that it will log.
pub fn enter(extension: &Extension) {
    if !ENTERED.get() {
        // SAFETY: locks on relations of ours, in an order that all writers have.
        for_transaction(|| unsafe {
            for (relation, mode) in [
                (extension.log, pg_sys::RowExclusiveLock),
                (extension.log_key, pg_sys::RowExclusiveLock),
                (extension.versions, pg_sys::AccessShareLock),
                (extension.clock, pg_sys::AccessShareLock),
            ] {
                pg_sys::LockRelationOid(relation, mode as i32);
            }
        });
        lock(last_version(extension), VERSION_LOCKS, pg_sys::ShareLock);
        ENTERED.set(true);
    }
}

/// Did this transaction log anything?
pub fn is_entered() -> bool {
    ENTERED.get()
}

/// The transaction is over, or prepared: its lock is not this backend's business any more.
pub fn leave() {
    ENTERED.set(false);
}

/// Is this server a standby, which replays what another writes?
pub fn is_standby() -> bool {
    // SAFETY: plain state of the server.
    unsafe { pg_sys::RecoveryInProgress() }
}

fn of_the_primary(what: &str) -> Error {
    Error::new(Kind::InvalidArgument, format!("this server is a standby, which {what}; call this on the primary"))
}

/// For what changes the replica's state.
pub fn require_primary() -> Result<()> {
    if is_standby() { Err(of_the_primary("cannot be changed")) } else { Ok(()) }
}

/// One apply at a time in this database.
pub fn lock_applies() -> Result<()> {
    require_primary()?;
    lock(0, APPLY_LOCK, pg_sys::ExclusiveLock);
    Ok(())
}

/// The highest version that is settled. A snapshot has to be taken after this.
pub fn settled(extension: &Extension) -> Result<i64> {
    if is_standby() {
        return Err(of_the_primary("cannot tell what is settled"));
    }
    let last = last_version(extension);
    // SAFETY: the server copies the lock table into our memory.
    let held = unsafe {
        let data = pg_sys::GetLockStatusData();
        let locks = std::slice::from_raw_parts((*data).locks, (*data).nelements as usize);
        let ours = tag(0, VERSION_LOCKS);
        let smallest = locks
            .iter()
            .filter(|l| {
                l.holdMask != 0
                    && l.locktag.locktag_field1 == ours.locktag_field1
                    && l.locktag.locktag_field4 == ours.locktag_field4
                    && l.locktag.locktag_type == ours.locktag_type
                    && l.locktag.locktag_lockmethodid == ours.locktag_lockmethodid
            })
            .map(|l| i64::from(l.locktag.locktag_field2) << 32 | i64::from(l.locktag.locktag_field3))
            .min();
        pg_sys::pfree((*data).locks.cast());
        pg_sys::pfree(data.cast());
        smallest
    };
    Ok(held.map_or(last, |key| key.min(last)))
}

/// What is served must outlive a crash, also where commits do not wait for the disk: a version that a client has seen never comes again.
pub fn flush() {
    /// Headers of a page of the write-ahead log, and of the first page of a file.
    const PAGE_HEADERS: [u64; 2] = [24, 40];
    // SAFETY: waits until the write-ahead log is on disk up to its end of now.
    unsafe {
        let end = pg_sys::GetXLogInsertRecPtr();
        // Where the next record begins a page, the page's header is not there yet: the log ends before it.
        let into_page = end % u64::from(pg_sys::XLOG_BLCKSZ);
        pg_sys::XLogFlush(if PAGE_HEADERS.contains(&into_page) { end - into_page } else { end });
    }
}

/// What this transaction writes is on disk when it has committed, whatever synchronous_commit says: it was told to somebody.
pub fn commit_durably() {
    // SAFETY: sets a flag of the running transaction.
    unsafe { pg_sys::ForceSyncCommit() }
}
