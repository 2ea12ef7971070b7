//! Holds the settings fixed that the text of a value may depend on, while one is written or read.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};

unsafe extern "C" {
    static mut extra_float_digits: c_int;
    static mut bytea_output: c_int;
    static mut Array_nulls: bool;
    static mut locale_monetary: *mut c_char;
    fn assign_locale_monetary(new: *const c_char, extra: *mut c_void);
}

/// The locale whose sums are `$1,234.56`.
const MONEY: &CStr = c"C";

const HEXADECIMAL: c_int = 1;

pub struct Pinned {
    date_style: i32,
    date_order: i32,
    interval_style: i32,
    float_digits: i32,
    bytea: i32,
    array_nulls: bool,
    money: *mut c_char,
    zone: *mut pg_sys::pg_tz,
}

impl Pinned {
    pub fn enter() -> Pinned {
        // SAFETY: plain state of this backend, put back by Drop, also when an error passes.
        unsafe {
            let before = Pinned {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                float_digits: extra_float_digits,
                bytea: bytea_output,
                array_nulls: Array_nulls,
                money: locale_monetary,
                zone: pg_sys::session_timezone,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as i32;
            pg_sys::DateOrder = pg_sys::DATEORDER_YMD as i32;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_ISO_8601 as i32;
            extra_float_digits = 1;
            bytea_output = HEXADECIMAL;
            Array_nulls = true;
            pg_sys::session_timezone = utc();
            set_money(MONEY.as_ptr().cast_mut());
            before
        }
    }
}

/// # Safety
/// A name that lives as long as it is set.
unsafe fn set_money(locale: *mut c_char) {
    unsafe {
        if !locale_monetary.is_null() && !locale.is_null() && CStr::from_ptr(locale_monetary) != CStr::from_ptr(locale) {
            locale_monetary = locale;
            // What the server keeps of the locale before is given up.
            assign_locale_monetary(locale, std::ptr::null_mut());
        }
    }
}

/// The zone UTC, which the server keeps once it has been asked for.
fn utc() -> *mut pg_sys::pg_tz {
    thread_local! {
        static UTC: Cell<*mut pg_sys::pg_tz> = const { Cell::new(std::ptr::null_mut()) };
    }
    if UTC.get().is_null() {
        // SAFETY: a look-up among the server's zones.
        UTC.set(unsafe { pg_sys::pg_tzset(c"UTC".as_ptr()) });
    }
    UTC.get()
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::DateOrder = self.date_order;
            pg_sys::IntervalStyle = self.interval_style;
            extra_float_digits = self.float_digits;
            bytea_output = self.bytea;
            Array_nulls = self.array_nulls;
            pg_sys::session_timezone = self.zone;
            set_money(self.money);
        }
    }
}
