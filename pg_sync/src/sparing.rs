//! Applied rows that spare the user's triggers: tables tracked with `userTriggers: false`.
//!
//! The executor takes a copy of a relation's triggers for every statement. Once a statement of ours has started, the copy of a spared table is
//! changed to what logical replication would fire: nothing but ENABLE ALWAYS and ENABLE REPLICA, and what the server itself keeps for foreign
//! keys. So it ends with the statement, however that ends, no other statement sees it, nested ones included, and no invalidation undoes it.
//! Partitions are opened while rows are routed to them: an INSERT's source is asked row by row, and the partition opened before the executor
//! does.
#![allow(unsafe_code)]

use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;

const FIRES_ON_ORIGIN: std::ffi::c_char = pg_sys::TRIGGER_FIRES_ON_ORIGIN as std::ffi::c_char;
const FIRES_ON_REPLICA: std::ffi::c_char = pg_sys::TRIGGER_FIRES_ON_REPLICA as std::ffi::c_char;
const FIRES_ALWAYS: std::ffi::c_char = pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char;
const DISABLED: std::ffi::c_char = pg_sys::TRIGGER_DISABLED as std::ffi::c_char;

unsafe extern "C-unwind" {
    fn ExecFindPartition(
        state: *mut pg_sys::ModifyTableState,
        root: *mut pg_sys::ResultRelInfo,
        routing: *mut pg_sys::PartitionTupleRouting,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    ) -> *mut pg_sys::ResultRelInfo;
}

thread_local! {
    /// The spared tables that this session has written to.
    static TABLES: RefCell<HashSet<Oid>> = RefCell::new(HashSet::new());
    /// The statements that apply rows, by the address of their text in their plan: the user's have others, if they read the same.
    static STATEMENTS: RefCell<HashSet<usize>> = RefCell::new(HashSet::new());
    /// The sources of INSERTs into partitioned tables that are running, and what they were before.
    static SOURCES: RefCell<HashMap<usize, Source>> = RefCell::new(HashMap::new());
}

#[derive(Clone, Copy)]
struct Source {
    next: pg_sys::ExecProcNodeMtd,
    insert: *mut pg_sys::ModifyTableState,
}

/// Is a table to be spared from now on?
pub fn choose(relation: Oid, spared: bool) {
    TABLES.with_borrow_mut(|tables| match spared {
        true => tables.insert(relation),
        false => tables.remove(&relation),
    });
}

/// A statement of ours, which is kept.
pub fn know(plan: pg_sys::SPIPlanPtr) {
    // SAFETY: a plan that is kept, of one statement.
    let text = unsafe {
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        (*pg_sys::list_nth(sources, 0).cast::<pg_sys::CachedPlanSource>()).query_string
    };
    STATEMENTS.with_borrow_mut(|statements| statements.insert(text as usize));
}

/// The statements of ours are kept no longer.
pub fn forget_statements() {
    STATEMENTS.with_borrow_mut(HashSet::clear);
}

/// A statement has started: if it is one of ours, the user's triggers of spared tables are kept from it. [`crate::statement`] calls this.
///
/// # Safety
/// The executor's own query.
#[pg_guard]
pub unsafe extern "C-unwind" fn has_started(query: *mut pg_sys::QueryDesc) {
    let any = TABLES.with_borrow(|tables| !tables.is_empty());
    // SAFETY: as above.
    unsafe {
        if any && STATEMENTS.with_borrow(|statements| statements.contains(&((*query).sourceText as usize))) {
            spare(query);
        }
    }
}

/// # Safety
/// The statement has started.
unsafe fn spare(query: *mut pg_sys::QueryDesc) {
    unsafe {
        let estate = (*query).estate;
        for target in listed::<pg_sys::ResultRelInfo>(targets(&*estate)) {
            if is_spared(target) {
                spare_triggers((*target).ri_TrigDesc);
            }
        }
        for plan in listed((*estate).es_subplanstates).chain([(*query).planstate]) {
            follow_routing(estate, plan);
        }
    }
}

/// The targets of a statement that has started.
#[cfg(not(feature = "pg13"))]
fn targets(estate: &pg_sys::EState) -> *mut pg_sys::List {
    estate.es_opened_result_relations
}

/// PostgreSQL 13 has them in another form: there the option is refused.
#[cfg(feature = "pg13")]
fn targets(_estate: &pg_sys::EState) -> *mut pg_sys::List {
    std::ptr::null_mut()
}

/// # Safety
/// A list of pointers to these, or null.
unsafe fn listed<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    let length = if list.is_null() { 0 } else { unsafe { (*list).length } };
    (0..length).map(move |place| unsafe { pg_sys::list_nth(list, place).cast() })
}

/// # Safety
/// A target of a statement that has started.
unsafe fn is_spared(target: *mut pg_sys::ResultRelInfo) -> bool {
    unsafe {
        let root = (*target).ri_RootResultRelInfo;
        let table = if root.is_null() { target } else { root };
        TABLES.with_borrow(|tables| tables.contains(&(*(*table).ri_RelationDesc).rd_id))
    }
}

/// # Safety
/// The statement's own copy of the triggers of a table, or null.
unsafe fn spare_triggers(triggers: *mut pg_sys::TriggerDesc) {
    if triggers.is_null() {
        return;
    }
    unsafe {
        for trigger in std::slice::from_raw_parts_mut((*triggers).triggers, (*triggers).numtriggers as usize) {
            match trigger.tgenabled {
                FIRES_ON_ORIGIN if !is_the_servers(trigger) => trigger.tgenabled = DISABLED,
                FIRES_ON_REPLICA => trigger.tgenabled = FIRES_ALWAYS,
                _ => {}
            }
        }
    }
}

/// Does the server keep a constraint by this trigger? Before PostgreSQL 15 the user's triggers are internal as well, in partitions.
fn is_the_servers(trigger: &pg_sys::Trigger) -> bool {
    // SAFETY: a comparison of numbers.
    let keeps_foreign_key = unsafe { pg_sys::RI_FKey_trigger_type(trigger.tgfoid) } != pg_sys::RI_TRIGGER_NONE as i32;
    trigger.tgisinternal && (keeps_foreign_key || trigger.tgfoid.to_u32() == pg_sys::F_UNIQUE_KEY_RECHECK)
}

/// Puts `next_row` before the source of an INSERT into a partitioned table.
///
/// # Safety
/// A plan of a statement that has started, or null.
unsafe fn follow_routing(estate: *mut pg_sys::EState, plan: *mut pg_sys::PlanState) {
    unsafe {
        if plan.is_null() || (*plan).type_ != pg_sys::NodeTag::T_ModifyTableState {
            return;
        }
        let insert = plan.cast::<pg_sys::ModifyTableState>();
        let source = (*plan).lefttree;
        if (*insert).mt_partition_tuple_routing.is_null() || source.is_null() || !is_spared((*insert).rootResultRelInfo) {
            return;
        }
        SOURCES.with_borrow_mut(|sources| sources.insert(source as usize, Source { next: (*source).ExecProcNodeReal, insert }));
        pg_sys::ExecSetExecProcNode(source, Some(next_row));
        let size = size_of::<pg_sys::MemoryContextCallback>();
        let end = pg_sys::MemoryContextAllocZero((*estate).es_query_cxt, size).cast::<pg_sys::MemoryContextCallback>();
        (*end).func = Some(source_ends);
        (*end).arg = source.cast();
        pg_sys::MemoryContextRegisterResetCallback((*estate).es_query_cxt, end);
    }
}

/// The source's next row, with the partition that it goes to open and spared.
#[pg_guard]
unsafe extern "C-unwind" fn next_row(source: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    let known = SOURCES.with_borrow(|sources| sources.get(&(source as usize)).copied());
    let Some(Source { next: Some(next), insert }) = known else { pgrx::error!("sync: a row from nowhere") };
    // SAFETY: called by the executor. A partition that is open already is only looked up.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            let slot = next(source);
            if !slot.is_null() && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0 {
                let (root, routing) = ((*insert).rootResultRelInfo, (*insert).mt_partition_tuple_routing);
                let partition = ExecFindPartition(insert, root, routing, slot, (*source).state);
                spare_triggers((*partition).ri_TrigDesc);
            }
            slot
        })
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn source_ends(source: *mut c_void) {
    SOURCES.with_borrow_mut(|sources| sources.remove(&(source as usize)));
}
