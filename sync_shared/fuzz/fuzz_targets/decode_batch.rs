//! Any bytes as a batch.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sync_shared_fuzz::check_batch(bytes));
