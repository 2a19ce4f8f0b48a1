//! Generated messages and services, and their conversions to checked values, both ways.
//!
//! The modules follow the packages of the `.proto` files; the Workload API, which has none, is [`workload`]. Messages
//! are what travels and may hold anything. It leaves out who may call and what is done.

pub mod any;
pub mod convert;
mod generated;
pub mod refusal;
#[cfg(test)]
mod wire_facts;
pub mod workload_reference;

pub use generated::spiffe::broker;
pub use generated::spindle::{admin, records, sync};
pub use generated::{envoy, spire, workload};

/// An encoded `google.protobuf.FileDescriptorSet` of the Workload API and all it imports, for reflection.
pub const WORKLOAD_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("workload.descriptors");

/// An encoded `google.protobuf.FileDescriptorSet` of Envoy's SDS and all it imports, for reflection.
pub const ENVOY_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("envoy.descriptors");

/// An encoded `google.protobuf.FileDescriptorSet` of all server services and all they import, for reflection.
pub const SERVER_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("server.descriptors");

/// An encoded `google.protobuf.FileDescriptorSet` of the services on an agent's admin socket and all they import, for
/// reflection.
pub const AGENT_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("agent.descriptors");

/// An encoded `google.protobuf.FileDescriptorSet` of the SPIFFE Broker API and all it imports, for reflection.
pub const BROKER_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("broker.descriptors");
