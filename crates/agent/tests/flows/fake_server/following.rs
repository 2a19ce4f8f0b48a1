//! The push stream.

use super::*;

#[tonic::async_trait]
impl sync::sync_server::Sync for Service {
    type FollowStream = Answers<sync::FollowResponse>;

    async fn follow(
        &self,
        request: Request<Streaming<sync::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.0.agent(&request, "Follow")?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.message);
        let Some(sync::follow_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no hello"));
        };
        self.0.hellos.lock().unwrap().push(hello);
        let fake = self.0.clone();
        let acknowledgements = futures_util::stream::unfold(requests, move |mut requests| {
            let fake = fake.clone();
            async move {
                let request = requests.message().await.ok()??;
                if let Some(sync::follow_request::Message::Acknowledge(ack)) = request.message {
                    fake.acknowledged.send_replace(ack.revision.unwrap_or_default().number);
                }
                Some((None, requests))
            }
        });
        let (fake, mut old) = (self.0.clone(), None::<Content>);
        let updates = WatchStream::new(self.0.content.subscribe()).map(move |new| {
            let update = fake.update(old.as_ref(), &new);
            old = Some(new);
            Some(Ok(update))
        });
        let refusals = WatchStream::new(self.0.refuse.subscribe())
            .map(|reason| reason.map(|reason| Err(agent_refusal("Follow", reason))));
        // Ends with the first refusal, as a real server's stream does.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut all = Box::pin(futures_util::stream::select(
            futures_util::stream::select(updates, refusals),
            acknowledgements,
        ));
        let pump = async move {
            while let Some(item) = all.next().await {
                let Some(message) = item else { continue };
                let is_last = message.is_err();
                if sender.send(message).await.is_err() || is_last {
                    return;
                }
            }
        };
        // The pump runs as part of the stream itself, so it ends with it.
        let pumped = futures_util::stream::once(pump).filter_map(|()| async { None });
        Ok(Response::new(Box::pin(futures_util::stream::select(ReceiverStream::new(receiver), pumped))))
    }
}
