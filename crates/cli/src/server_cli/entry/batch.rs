//! Large files in several calls: a server takes messages of 4 MiB and a bounded number of items at once.

use prost::Message;
use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use tonic::transport::Channel;

use crate::args::Socket;
use crate::console::Console;
use crate::error::Failure;
use crate::server_cli::dial;

/// Items of one call. The measured optimum of the server's group commit lies far below.
const ITEMS_MAX: usize = 500;

/// Bytes of one call, with room below gRPC's usual limit of 4 MiB for what the answer adds.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// The largest answer taken: a page of 500 entries with all the selectors that an entry may have.
pub(in crate::server_cli) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A client of the entry service that flags and environment name.
pub(in crate::server_cli) async fn client(
    socket: &Socket,
    console: &Console<'_>,
) -> Result<EntryClient<Channel>, Failure> {
    Ok(EntryClient::new(dial(socket, console).await?).max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// The items in order, in calls that a server takes. An item that is too large alone gets a call of its own, which the
/// server refuses in its own words. No items make one empty call.
pub(in crate::server_cli) fn split<T: Message>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut calls = vec![Vec::new()];
    let mut bytes = 0;
    for item in items {
        let item_bytes = item.encoded_len();
        if let Some(call) = calls.last_mut()
            && (call.is_empty() || (call.len() < ITEMS_MAX && bytes + item_bytes <= BYTES_MAX))
        {
            call.push(item);
            bytes += item_bytes;
            continue;
        }
        calls.push(vec![item]);
        bytes = item_bytes;
    }
    calls
}

/// What to say when a call fails after others were answered.
pub(in crate::server_cli) fn part_done(failure: Failure, done: usize) -> Failure {
    if done == 0 {
        return failure;
    }
    failure.try_this(format!(
        "send the rest again: the first {done} items of the input were answered, as shown above"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(lengths: &[usize]) -> Vec<usize> {
        let items = lengths.iter().map(|length| "x".repeat(*length)).collect();
        split::<String>(items).iter().map(Vec::len).collect()
    }

    #[test]
    fn calls_are_bounded_by_count_and_by_size() {
        assert_eq!(sizes(&[]), [0]);
        assert_eq!(sizes(&[1; 500]), [500]);
        assert_eq!(sizes(&[1; 1001]), [500, 500, 1]);
        assert_eq!(sizes(&[1024 * 1024; 3]), [1, 1, 1]);
        assert_eq!(sizes(&[900 * 1024; 5]), [2, 2, 1]);
        assert_eq!(sizes(&[5, 5 * 1024 * 1024, 5]), [1, 1, 1]);
    }

    #[test]
    fn what_was_done_before_a_failure_is_told() {
        assert!(part_done(Failure::new("x"), 0).remedies().is_empty());
        assert!(part_done(Failure::new("x"), 500).remedies()[0].contains("first 500 items"));
    }
}
