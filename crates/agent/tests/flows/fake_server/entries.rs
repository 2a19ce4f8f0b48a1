//! Entries for agents that poll.

use super::*;

#[tonic::async_trait]
impl entry::entry_server::Entry for Service {
    type SyncAuthorizedEntriesStream = Answers<entry::SyncAuthorizedEntriesResponse>;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<entry::SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        self.0.agent(&request, "SyncAuthorizedEntries")?;
        let mut requests = request.into_inner();
        requests.message().await?;
        let content = self.0.content.borrow().clone();
        if content.entries.len() <= 500 {
            let entries = content.entries.values().map(entry_to_proto).collect();
            let only = entry::SyncAuthorizedEntriesResponse { entries, ..Default::default() };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(only)))));
        }
        let all: Vec<_> = content.entries.values().collect();
        let pages: Vec<_> = all.chunks(500).collect();
        let last = pages.len() - 1;
        let brief = pages.into_iter().enumerate().map(|(number, page)| {
            Ok(entry::SyncAuthorizedEntriesResponse {
                entry_revisions: page.iter().map(|one| revision(one)).collect(),
                entries: Vec::new(),
                more: number < last,
            })
        });
        let brief: Vec<_> = brief.collect();
        let fake = self.0.clone();
        let asked = requests.map(move |request| {
            let ids = request?.ids;
            fake.asked.lock().unwrap().extend(ids.clone());
            let entries = ids.iter().filter_map(|id| content.entries.get(id)).map(entry_to_proto);
            Ok(entry::SyncAuthorizedEntriesResponse { entries: entries.collect(), ..Default::default() })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(brief).chain(asked))))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<entry::GetAuthorizedEntriesRequest>,
    ) -> Result<Response<entry::GetAuthorizedEntriesResponse>, Status> {
        self.0.agent(&request, "GetAuthorizedEntries")?;
        let entries = self.0.content.borrow().entries.values().map(entry_to_proto).collect();
        self.0.asked.lock().unwrap().push("everything".into());
        Ok(Response::new(entry::GetAuthorizedEntriesResponse { entries }))
    }

    async fn count_entries(
        &self,
        _: Request<entry::CountEntriesRequest>,
    ) -> Result<Response<entry::CountEntriesResponse>, Status> {
        Err(not_faked())
    }

    async fn list_entries(
        &self,
        _: Request<entry::ListEntriesRequest>,
    ) -> Result<Response<entry::ListEntriesResponse>, Status> {
        Err(not_faked())
    }

    async fn get_entry(&self, _: Request<entry::GetEntryRequest>) -> Result<Response<types::Entry>, Status> {
        Err(not_faked())
    }

    async fn batch_create_entry(
        &self,
        _: Request<entry::BatchCreateEntryRequest>,
    ) -> Result<Response<entry::BatchCreateEntryResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_update_entry(
        &self,
        _: Request<entry::BatchUpdateEntryRequest>,
    ) -> Result<Response<entry::BatchUpdateEntryResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_delete_entry(
        &self,
        _: Request<entry::BatchDeleteEntryRequest>,
    ) -> Result<Response<entry::BatchDeleteEntryResponse>, Status> {
        Err(not_faked())
    }
}

fn revision(one: &RegistrationEntry) -> entry::EntryRevision {
    let created_at = Timestamp::unix_secs(one.created_at);
    entry::EntryRevision { id: one.id.to_string(), revision_number: one.revision_number, created_at }
}
