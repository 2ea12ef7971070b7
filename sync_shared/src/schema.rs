//! The names of the tables that belong to the extension.

/// Every table and view of ours; none of them can be tracked or named by a batch.
pub const SCHEMA_TABLES: [&str; 17] = [
    "_sync_state",
    "_sync_session",
    "_sync_origins",
    "_sync_tables",
    "_sync_layouts",
    "_sync_log_data",
    "_sync_log",
    "_sync_clients",
    "_sync_peers",
    "_sync_unseen",
    "_sync_received",
    "_sync_marks",
    "_sync_pushes",
    "_sync_conflicts",
    "_sync_rejections",
    "_sync_resync_rows",
    "_sync_subscriptions",
];
