//! Writes the Workload API's answers as finished gRPC messages, straight into memory that is wiped on drop.
//!
//! Done by hand because a generated message would leave further copies of keys and tokens behind. Only a few message
//! types are needed; the tests decode them with the generated code.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::view::{Content, NumberedBundle, Shown};

/// One byte that says "not compressed" and four of length stand before each gRPC message.
const FRAME_BYTES: usize = 5;

/// A `string`, `bytes` or message field: number in the upper bits, wire type 2.
const fn tag(field: u8) -> u8 {
    (field << 3) | 2
}

/// The framed `X509SVIDResponse` of the Workload API.
pub(super) fn x509_svids(content: &Content) -> Bytes {
    x509_svids_of(content, |_| true)
}

/// The framed `SubscribeToX509SVIDResponse` of the Broker API, which has the form of the Workload API's, with the identities
/// that are `given`.
pub(crate) fn x509_svids_of(content: &Content, given: impl Fn(&Shown) -> bool) -> Bytes {
    let own = content.own.bundle.to_der();
    let given = content.identities.iter().filter(|one| given(one));
    let svids: Vec<Zeroizing<Vec<u8>>> = given.map(|one| svid(one, &own)).collect();
    let federated = map_entries(content.federated.iter(), |one| one.bundle.to_der().into());
    let size = svids.iter().map(|one| field_bytes(one.len())).sum::<usize>()
        + federated.iter().map(|one| field_bytes(one.len())).sum::<usize>();
    let mut message = framed(size);
    svids.iter().for_each(|one| put(&mut message, 1, one));
    federated.iter().for_each(|one| put(&mut message, 3, one));
    finish(message)
}

/// The framed `X509BundlesResponse` of the Workload API.
pub(super) fn x509_bundles(content: &Content) -> Bytes {
    map(2, &map_entries(all_bundles(content), |one| one.bundle.to_der().into()))
}

/// The framed `JWTBundlesResponse` of the Workload API.
pub(super) fn jwt_bundles(content: &Content) -> Bytes {
    map(1, &map_entries(all_bundles(content), |one| one.jwt_key_set().clone()))
}

/// The framed `JWTSVIDResponse` of the Workload API: for each token the SPIFFE ID, the token and the hint.
pub(crate) fn jwt_svids<'a>(svids: impl Iterator<Item = [&'a str; 3]>) -> Bytes {
    let svids: Vec<Zeroizing<Vec<u8>>> = svids
        .map(|[id, token, hint]| fields(&[(1, id.as_bytes()), (2, token.as_bytes()), (3, hint.as_bytes())]))
        .collect();
    let mut message = framed(svids.iter().map(|one| field_bytes(one.len())).sum());
    svids.iter().for_each(|one| put(&mut message, 1, one));
    finish(message)
}

/// The framed `WITBundlesResponse` of the Workload API.
pub(super) fn wit_bundles(content: &Content) -> Bytes {
    map(1, &map_entries(all_bundles(content), |one| one.wit_key_set().clone()))
}

/// The framed `WITSVIDResponse` of the Workload API: for each the SPIFFE ID, the token, its key and the hint.
pub(crate) fn wit_svids<'a>(svids: impl Iterator<Item = [&'a str; 4]>) -> Bytes {
    let svids: Vec<Zeroizing<Vec<u8>>> = svids
        .map(|[id, token, key, hint]| {
            fields(&[(1, id.as_bytes()), (2, token.as_bytes()), (3, key.as_bytes()), (4, hint.as_bytes())])
        })
        .collect();
    let mut message = framed(svids.iter().map(|one| field_bytes(one.len())).sum());
    svids.iter().for_each(|one| put(&mut message, 1, one));
    finish(message)
}

/// The own bundle first.
fn all_bundles(content: &Content) -> impl Iterator<Item = &NumberedBundle> {
    std::iter::once(&content.own).chain(&content.federated)
}

/// A framed message that is one map.
fn map(field: u8, entries: &[Vec<u8>]) -> Bytes {
    let mut message = framed(entries.iter().map(|one| field_bytes(one.len())).sum());
    entries.iter().for_each(|one| put(&mut message, field, one));
    finish(message)
}

fn svid(shown: &Shown, own_bundle: &[u8]) -> Zeroizing<Vec<u8>> {
    let chain = shown.held.svid.to_der();
    let (id, hint) = (shown.held.svid.spiffe_id().as_str().as_bytes(), shown.hint.as_str().as_bytes());
    fields(&[(1, id), (2, &chain), (3, &shown.held.key_pkcs8), (4, own_bundle), (5, hint)])
}

/// A message of fields with length; empty ones are left out, as proto3 does.
fn fields(parts: &[(u8, &[u8])]) -> Zeroizing<Vec<u8>> {
    let mut message =
        Zeroizing::new(Vec::with_capacity(parts.iter().map(|(_, part)| field_bytes(part.len())).sum()));
    for &(field, part) in parts {
        if !part.is_empty() {
            put(&mut message, field, part);
        }
    }
    message
}

/// Map entries from the trust domain's SPIFFE ID to what `keys` makes of its bundle.
fn map_entries<'a>(
    bundles: impl Iterator<Item = &'a NumberedBundle>,
    keys: impl Fn(&NumberedBundle) -> Bytes,
) -> Vec<Vec<u8>> {
    bundles
        .map(|one| {
            let mut entry = Vec::new();
            put(&mut entry, 1, one.bundle.trust_domain().id().as_str().as_bytes());
            put(&mut entry, 2, &keys(one));
            entry
        })
        .collect()
}

/// Room for the whole message at once: growing would leave unwiped copies behind.
pub(super) fn framed(message_bytes: usize) -> Zeroizing<Vec<u8>> {
    let mut frame = Zeroizing::new(Vec::with_capacity(FRAME_BYTES + message_bytes));
    frame.extend_from_slice(&[0; FRAME_BYTES]);
    frame
}

pub(super) fn finish(mut frame: Zeroizing<Vec<u8>>) -> Bytes {
    let bytes = u32::try_from(frame.len() - FRAME_BYTES)
        .expect("an answer holds a bounded number of bounded certificates, far below 4 GiB");
    frame[1..FRAME_BYTES].copy_from_slice(&bytes.to_be_bytes());
    Bytes::from_owner(frame)
}

/// What a field of `bytes` takes with its tag and length.
pub(super) fn field_bytes(bytes: usize) -> usize {
    let mut length_bytes = 1;
    while bytes >> (7 * length_bytes) > 0 {
        length_bytes += 1;
    }
    1 + length_bytes + bytes
}

pub(super) fn put(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(tag(field));
    let mut rest = value.len();
    while rest >= 0x80 {
        message.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    message.push(rest as u8);
    message.extend_from_slice(value);
}
