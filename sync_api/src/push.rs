//! A push as it arrives: read here once before the database sees it, to know who sent it and whose changes it has.

use crate::error::{ApiError, Result};
use crate::tokens::Caller;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use sync_shared::{BatchKind, decode_batch};

/// A batch that its sender may push.
#[derive(Debug)]
pub struct Push {
    pub text: String,
    pub changes: usize,
}

/// What of a pull stays when it is pushed: the rest speaks to the one who pulled.
const KEPT: [&str; 4] = ["originId", "epoch", "hash", "changes"];

impl Push {
    /// Reads a batch and checks that this caller may send it.
    ///
    /// Errors: `InvalidBatch`, `LimitExceeded`; `PermissionDenied` when it speaks for another replica.
    pub fn read(text: String, caller: &Caller) -> Result<Push> {
        let batch = decode_batch(&text).map_err(|error| ApiError::of_batch(&error))?;
        caller.must_be(&batch.origin_id)?;
        if let (false, Some(origin)) = (caller.relay, &caller.origin)
            && let Some(foreign) = batch.changes.iter().find(|change| change.origin.as_ref() != origin.as_str())
        {
            let message = format!("change {} was made by another replica, and this token is not a relay's", foreign.version);
            return Err(ApiError::forbidden(message));
        }
        let changes = batch.changes.len();
        let is_pull = batch.kind == BatchKind::Pull;
        drop(batch);
        let text = if is_pull { as_push(&text)? } else { text };
        Ok(Push { text, changes })
    }
}

impl Caller {
    /// May it speak for this replica?
    pub fn must_be(&self, origin: &str) -> Result<()> {
        match &self.origin {
            _ if self.open => Ok(()),
            Some(own) if own == origin => Ok(()),
            Some(_) => Err(ApiError::forbidden("the token is that of another replica")),
            None => Err(ApiError::forbidden("the token is no replica's: it may only read")),
        }
    }
}

/// What a GET has answered can be sent on as it is: to whom it is sent, it is a push.
fn as_push(text: &str) -> Result<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|_| ApiError::argument("the batch is not an object"))?;
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let kept = members.into_iter().filter(|(name, _)| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(&plain(name))));
    serde_json::to_string(&kept.collect::<BTreeMap<_, _>>()).map_err(|_| ApiError::internal())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: &str = "6242d466-6887-433a-923f-bcc1ec471740";
    const OTHERS: &str = "442ee4a2-12ec-4977-8b31-c8e491afc239";

    fn batch(kind: &str, sender: &str, origin: &str) -> String {
        format!(
            r#"{{"kind":"{kind}","originId":"{sender}","fromVersion":0,"toVersion":1,"maxVersion":7,"excluded":[],"changes":[{{"version":1,
            "tableName":"t","pkValue":"{{\"id\":1}}","operation":"Delete","payload":null,"origin":"{origin}",
            "timestamp":"2026-01-15T10:30:00.000Z"}}]}}"#
        )
    }

    fn client(relay: bool) -> Caller {
        Caller { origin: Some(MINE.to_owned()), relay, ..Caller::default() }
    }

    #[test]
    fn a_client_pushes_its_own_changes_only() {
        assert!(Push::read(batch("push", MINE, MINE), &client(false)).is_ok());
        for text in [batch("push", OTHERS, MINE), batch("push", MINE, OTHERS), batch("push", OTHERS, OTHERS)] {
            assert_eq!(Push::read(text, &client(false)).unwrap_err().kind, "PermissionDenied");
        }
    }

    #[test]
    fn a_relay_pushes_what_others_made_under_its_own_name() {
        assert!(Push::read(batch("push", MINE, OTHERS), &client(true)).is_ok());
        assert_eq!(Push::read(batch("push", OTHERS, OTHERS), &client(true)).unwrap_err().kind, "PermissionDenied");
    }

    #[test]
    fn a_token_without_an_origin_pushes_nothing() {
        assert_eq!(Push::read(batch("push", MINE, MINE), &Caller::default()).unwrap_err().kind, "PermissionDenied");
    }

    #[test]
    fn a_pull_is_sent_on_as_a_push() {
        let open = Caller { open: true, ..Caller::default() };
        let push = Push::read(batch("pull", OTHERS, OTHERS), &open).unwrap();
        assert_eq!(decode_batch(&push.text).unwrap().kind, BatchKind::Push);
        assert!(!push.text.contains("excluded") && !push.text.contains("maxVersion"));
    }
}
