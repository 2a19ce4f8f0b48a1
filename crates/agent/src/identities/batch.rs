//! One call for many SVIDs: makes the keys and requests, has them signed, checks what comes back.
//!
//! Keys are made on blocking threads, in parallel. A certificate counts only when it names the entry's SPIFFE ID and
//! holds the key it was asked for. Start at [`sign`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use rustls_pki_types::CertificateDer;
use spindle_keys::{Key, KeyError, KeyType, certificate_request};
use spindle_spiffe_core::{EntryId, X509Svid};
use zeroize::Zeroizing;

use super::plan::Ticket;
use crate::call_error::CallError;

/// One certificate asked for.
#[derive(Debug)]
pub(crate) struct SigningRequest {
    /// The entry it is for.
    pub(crate) entry_id: EntryId,
    /// PKCS#10 in DER.
    pub(crate) csr: Vec<u8>,
}

/// The chain in DER, leaf first, or why this entry was refused.
pub(crate) type SigningAnswer = Result<Vec<Bytes>, String>;

/// Has certificates signed. The real one calls the server.
pub(crate) trait Signer: Send + Sync {
    /// One answer for each request, in their order.
    fn sign(
        &self,
        requests: Vec<SigningRequest>,
    ) -> BoxFuture<'static, Result<Vec<SigningAnswer>, CallError>>;
}

/// A checked certificate with its key.
pub(crate) struct Signed {
    pub(crate) svid: X509Svid,
    pub(crate) key_pkcs8: Zeroizing<Vec<u8>>,
}

/// What became of each ticket, or of the whole call.
pub(crate) type Outcome = Result<Vec<(Ticket, Result<Signed, String>)>, (Vec<Ticket>, CallError)>;

type Request = (Key, Vec<u8>);

/// Has an SVID signed for each ticket.
pub(crate) async fn sign(signer: Arc<dyn Signer>, tickets: Vec<Ticket>, key_type: KeyType) -> Outcome {
    let requests = match requests(&tickets, key_type).await {
        Ok(requests) => requests,
        Err(error) => return Err((tickets, error)),
    };
    let (keys, csrs): (Vec<Key>, Vec<Vec<u8>>) = requests.into_iter().unzip();
    let asked = tickets
        .iter()
        .zip(csrs)
        .map(|(ticket, csr)| SigningRequest { entry_id: ticket.entry.id.clone(), csr })
        .collect();
    let answers = match signer.sign(asked).await {
        Ok(answers) if answers.len() == tickets.len() => answers,
        Ok(answers) => {
            let error =
                CallError::answer(format!("{} answers for {} requests", answers.len(), tickets.len()));
            return Err((tickets, error));
        }
        Err(error) => return Err((tickets, error)),
    };
    let checked = tickets.into_iter().zip(keys).zip(answers);
    Ok(checked
        .map(|((ticket, key), answer)| {
            let signed = answer.and_then(|chain| check(&ticket, &key, &chain));
            (ticket, signed)
        })
        .collect())
}

/// A new key and its request for each ticket, in their order.
async fn requests(tickets: &[Ticket], key_type: KeyType) -> Result<Vec<Request>, CallError> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = tickets.len().div_ceil(threads).max(1);
    let shares = tickets.chunks(share).map(|tickets| {
        let entries: Vec<_> = tickets.iter().map(|ticket| ticket.entry.clone()).collect();
        tokio::task::spawn_blocking(move || {
            let request = |entry: &spindle_spiffe_core::RegistrationEntry| -> Result<Request, KeyError> {
                let key = Key::generate(key_type)?;
                let csr = certificate_request(&key, Some(&entry.spiffe_id), &[])?;
                Ok((key, csr))
            };
            entries.iter().map(|entry| request(entry)).collect::<Result<Vec<_>, _>>()
        })
    });
    let mut all = Vec::with_capacity(tickets.len());
    for made in join_all(shares).await {
        match made {
            Ok(Ok(requests)) => all.extend(requests),
            Ok(Err(error)) => return Err(CallError::local(&error)),
            Err(error) => return Err(CallError::local(&error)),
        }
    }
    Ok(all)
}

fn check(ticket: &Ticket, key: &Key, chain: &[Bytes]) -> Result<Signed, String> {
    let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let svid = X509Svid::parse(chain).map_err(|error| format!("the server's certificate is bad: {error}"))?;
    if *svid.spiffe_id() != ticket.entry.spiffe_id {
        return Err(format!("the server's certificate names {}", svid.spiffe_id()));
    }
    if svid.spki_der() != key.spki_der() {
        return Err("the server's certificate holds another key".to_owned());
    }
    Ok(Signed { svid, key_pkcs8: key.pkcs8_der() })
}
