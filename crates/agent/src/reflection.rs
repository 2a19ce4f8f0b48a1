//! Reflection: each socket describes its own services, and both versions of the service itself, as gRPC's own library does.

use tonic_reflection::pb;
use tonic_reflection::server::Builder;

/// A builder for services that are described by `sets`.
pub(crate) fn describing<'a>(sets: impl IntoIterator<Item = &'a [u8]>) -> Builder<'a> {
    let own = [pb::v1::FILE_DESCRIPTOR_SET, pb::v1alpha::FILE_DESCRIPTOR_SET];
    let all = own.into_iter().chain(sets);
    all.fold(Builder::configure(), Builder::register_encoded_file_descriptor_set)
}
