//! Writes the Delegated Identity API's answer with private keys as a finished gRPC message, as `encode` does for the
//! Workload API.

use bytes::Bytes;
use prost::Message;
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::types;
use zeroize::Zeroizing;

use super::encode::{field_bytes, finish, framed, put};
use super::view::{Content, Shown};

/// The framed `SubscribeToX509SVIDsResponse`, without identities of administrators and downstream servers. Wiped on drop.
/// Hints are those of the entries, shared or not: a delegate may look after several workloads.
pub(crate) fn delegated_x509_svids(content: &Content) -> Bytes {
    let given = content.identities.iter().filter(|one| !one.entry.admin && !one.entry.downstream);
    let svids: Vec<Zeroizing<Vec<u8>>> = given.map(svid_with_key).collect();
    let federated: Vec<_> = content.federated.iter().map(|one| one.bundle.trust_domain().id()).collect();
    let size = svids.iter().map(|one| field_bytes(one.len())).sum::<usize>()
        + federated.iter().map(|one| field_bytes(one.as_str().len())).sum::<usize>();
    let mut message = framed(size);
    svids.iter().for_each(|one| put(&mut message, 1, one));
    federated.iter().for_each(|one| put(&mut message, 2, one.as_str().as_bytes()));
    finish(message)
}

fn svid_with_key(shown: &Shown) -> Zeroizing<Vec<u8>> {
    let svid = &shown.held.svid;
    let certificates = types::X509svid {
        cert_chain: svid.chain().iter().map(|one| Bytes::copy_from_slice(one)).collect(),
        id: Some(spiffe_id_to_proto(svid.spiffe_id())),
        expires_at: svid.validity().not_after.unix_secs(),
        hint: shown.entry.hint.as_str().to_owned(),
    }
    .encode_to_vec();
    let parts: [(u8, &[u8]); 2] = [(1, &certificates), (2, &shown.held.key_pkcs8)];
    let size = parts.iter().map(|(_, part)| field_bytes(part.len())).sum();
    let mut message = Zeroizing::new(Vec::with_capacity(size));
    parts.iter().for_each(|(field, part)| put(&mut message, *field, part));
    message
}
