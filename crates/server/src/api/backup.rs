//! The Backup service: the whole store at one revision, read while the server goes on.
//!
//! The records are loaded in one go, in order with the commits, and then sent at the reader's pace. One reader at a time:
//! each holds the records in memory until it is done. Its file is the one of `store export`, with a checksum at its end.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use spindle_proto::admin::v1 as wire;
use spindle_proto::refusal::refusal;
use spindle_runtime::Shutdown;
use spindle_spiffe_core::{ErrorChain, Reason};
use spindle_store::{ExportParts, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Request, Response, Status};
use tracing::{error, info};

use crate::context::Context;

/// A piece is sent once it has so many bytes; one record may make it longer.
const PIECE_BYTES: usize = 64 * 1024;

pub(crate) struct BackupService {
    context: Arc<Context>,
    reader: Arc<Semaphore>,
}

impl BackupService {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, reader: Arc::new(Semaphore::new(1)) }
    }
}

type Answer = Result<wire::ReadResponse, Status>;

#[tonic::async_trait]
impl wire::backup_server::Backup for BackupService {
    type ReadStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn read(&self, _: Request<wire::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let busy = |_| refusal(Code::ResourceExhausted, Reason::Overloaded, "another backup is being read");
        let reader = self.reader.clone().try_acquire_owned().map_err(busy)?;
        let parts = self.context.directory.export_parts().await.map_err(|error| failed(&error))?;
        let exported = parts.exported();
        info!(records = exported.records, revision = exported.revision.number, "backup started");
        let stop = self.context.shutdown.clone();
        let pieces = Pieces { parts: Some(parts), stop, _reader: reader };
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }
}

fn failed(error: &StoreError) -> Status {
    error!(error = %ErrorChain(error), "the store cannot be read for a backup");
    refusal(Code::Internal, Reason::StoreFailed, "the store cannot be read")
}

/// What is sent, made as the reader asks for it.
struct Pieces {
    /// None after the last piece or a fault.
    parts: Option<ExportParts>,
    stop: Shutdown,
    _reader: OwnedSemaphorePermit,
}

impl Pieces {
    fn piece(parts: &mut ExportParts) -> std::io::Result<Vec<u8>> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES {
            let Some(part) = parts.next() else { break };
            piece.extend_from_slice(&part?);
        }
        Ok(piece)
    }
}

impl Iterator for Pieces {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let parts = self.parts.as_mut()?;
        let fault = if self.stop.has_begun() {
            refusal(Code::Unavailable, Reason::ServerStopping, "the server is stopping")
        } else {
            match Self::piece(parts) {
                Ok(piece) if piece.is_empty() => {
                    info!("backup read to its end");
                    self.parts = None;
                    return None;
                }
                Ok(piece) => return Some(Ok(wire::ReadResponse { piece: piece.into() })),
                Err(error) => {
                    error!(error = %ErrorChain(&error), "a record cannot be put into a backup");
                    refusal(Code::Internal, Reason::StoreFailed, "a record cannot be put into the backup")
                }
            }
        };
        self.parts = None;
        Some(Err(fault))
    }
}
