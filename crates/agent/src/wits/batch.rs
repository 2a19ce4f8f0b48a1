//! One call for many WIT-SVIDs: makes the keys, has the tokens signed, checks what comes back.

use std::sync::Arc;

use spindle_keys::{Key, KeyError, KeyType};
use spindle_spiffe_core::Timestamp;

use super::ask::{WitIssuer, WitRequest};
use super::token::{ALGORITHM, HeldWit};
use crate::cache::Cache;
use crate::call_error::CallError;
use crate::identities::plan::Ticket;

/// What became of each ticket, or of the whole call.
pub(super) type Outcome = Result<Vec<(Ticket, Result<HeldWit, String>)>, (Vec<Ticket>, CallError)>;

/// Has a WIT-SVID signed for each ticket, each with a key of its own.
pub(super) async fn sign(
    issuer: Arc<dyn WitIssuer>,
    cache: Arc<Cache>,
    tickets: Vec<Ticket>,
    now: impl Fn() -> Timestamp,
) -> Outcome {
    let keys = match keys(tickets.len()).await {
        Ok(keys) => keys,
        Err(error) => return Err((tickets, error)),
    };
    let request = |(ticket, key): (&Ticket, &Key)| WitRequest {
        entry_id: ticket.entry.id.clone(),
        public_key: key.spki_der().to_vec(),
        algorithm: ALGORITHM,
    };
    let answers = match issuer.issue(tickets.iter().zip(&keys).map(request).collect()).await {
        Ok(answers) if answers.len() == tickets.len() => answers,
        Ok(answers) => {
            let what = format!("{} answers for {} requests", answers.len(), tickets.len());
            return Err((tickets, CallError::answer(what)));
        }
        Err(error) => return Err((tickets, error)),
    };
    let received = tickets.into_iter().zip(keys).zip(answers).map(|((ticket, key), answer)| {
        let held = answer
            .and_then(|token| HeldWit::received(cache.next_number(), &ticket.entry, &key, token, now()));
        (ticket, held)
    });
    Ok(received.collect())
}

/// New keys, made off the async threads.
async fn keys(count: usize) -> Result<Vec<Key>, CallError> {
    let made = tokio::task::spawn_blocking(move || {
        (0..count).map(|_| Key::generate(KeyType::EcP256)).collect::<Result<Vec<_>, KeyError>>()
    });
    match made.await {
        Ok(Ok(keys)) => Ok(keys),
        Ok(Err(error)) => Err(CallError::local(&error)),
        Err(error) => Err(CallError::local(&error)),
    }
}
