//! The options of `sync_with`, `sync_pull` and `sync_push`.

use crate::batch::MAX_CHANGES;
use crate::error::{Error, Result};
use serde_json::{Map, Value as Json};
use std::time::Duration;

/// How long an exchange with the server may make no progress unless the options say otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that can be asked for, in milliseconds.
const LONGEST_TIMEOUT: i64 = 3_600_000;

/// What was said about how to sync. A file needs no token, time-out or certificate.
#[derive(Clone)]
pub struct SyncOptions {
    /// Changes per batch; None: as many as suit.
    pub batch_size: Option<i64>,
    /// Sent to an HTTP server as a bearer token.
    pub token: Option<String>,
    /// How long one exchange may make no progress, its repetitions included.
    pub timeout: Duration,
    pub tls: Tls,
}

/// How the server's certificate is checked. It always is.
#[derive(Clone, Default)]
pub struct Tls {
    /// `tls` was given: the connection has to be encrypted.
    pub required: bool,
    /// A file of certificates, in PEM, of whoever may have signed the server's; None: those that the system trusts.
    pub ca: Option<String>,
}

impl SyncOptions {
    /// Errors: `InvalidArgument`.
    pub fn parse(options: Option<&str>) -> Result<SyncOptions> {
        let mut parsed = SyncOptions { batch_size: None, token: None, timeout: TIMEOUT, tls: Tls::default() };
        let Some(text) = options else { return Ok(parsed) };
        // What serde says could repeat a token.
        let members: Map<String, Json> = serde_json::from_str(text).map_err(|_| Error::argument("the options are not a JSON object"))?;
        for (option, value) in members {
            let wrong = |what: &str| Error::argument(format!("option {option:?} must be {what}"));
            match option.as_str() {
                _ if value.is_null() => {}
                "batchSize" => {
                    let size = value.as_i64().filter(|size| (1..=MAX_CHANGES as i64).contains(size));
                    parsed.batch_size = Some(size.ok_or_else(|| wrong(&format!("a number from 1 to {MAX_CHANGES}")))?);
                }
                "token" => {
                    let token = value.as_str().filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
                    parsed.token = Some(token.ok_or_else(|| wrong("a text of visible ASCII characters"))?.to_owned());
                }
                "timeoutMs" => {
                    let timeout = value.as_i64().filter(|ms| (1..=LONGEST_TIMEOUT).contains(ms));
                    let timeout = timeout.ok_or_else(|| wrong(&format!("a number from 1 to {LONGEST_TIMEOUT}")))?;
                    parsed.timeout = Duration::from_millis(timeout.unsigned_abs());
                }
                "tls" => parsed.tls = Tls::parse(value)?,
                _ => return Err(Error::argument(format!("there is no option {option:?}"))),
            }
        }
        Ok(parsed)
    }
}

impl Tls {
    fn parse(value: Json) -> Result<Tls> {
        let Json::Object(members) = value else { return Err(Error::argument("option \"tls\" must be an object")) };
        let mut tls = Tls { required: true, ca: None };
        for (setting, value) in members {
            match setting.as_str() {
                "ca" => {
                    let path = value.as_str().filter(|path| !path.is_empty());
                    tls.ca = Some(path.ok_or_else(|| Error::argument("option \"tls.ca\" must be the path of a file"))?.to_owned());
                }
                _ => return Err(Error::argument(format!("there is no option \"tls.{setting}\"; certificates are always verified"))),
            }
        }
        Ok(tls)
    }
}
