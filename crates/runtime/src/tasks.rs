//! A set of named tasks whose ends are always observed. The first to end takes the rest along.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

use spindle_spiffe_core::ErrorChain;

use crate::Shutdown;

/// How one task of a set ended.
#[derive(Debug)]
pub struct TaskEnd {
    /// The name it was spawned under.
    pub name: &'static str,
    /// Its own error, or that it panicked; none when it ended by itself or was stopped.
    pub error: Option<String>,
}

impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{} failed: {error}", self.name),
            None => write!(f, "{} ended", self.name),
        }
    }
}

/// Owns tasks; nothing is spawned outside of one.
#[derive(Default)]
pub struct TaskSet {
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<Id, &'static str>,
}

impl TaskSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns `task` under `name`. Its error is kept as text, with all its sources.
    pub fn spawn<E: std::error::Error + 'static>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let handle =
            self.tasks.spawn(async move { task.await.map_err(|error| ErrorChain(&error).to_string()) });
        self.names.insert(handle.id(), name);
    }

    /// Spawns a task that cannot fail.
    pub fn spawn_infallible(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(async move {
            task.await;
            Ok(())
        });
        self.names.insert(handle.id(), name);
    }

    /// How many tasks have not been seen to end.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether every task has been seen to end.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits for the next task to end; none when the set is empty. Cancel-safe.
    pub async fn next_end(&mut self) -> Option<TaskEnd> {
        let ended = self.tasks.join_next_with_id().await?;
        let (id, error) = match ended {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(error))) => (id, Some(error)),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => (error.id(), Some(format!("panicked: {error}"))),
        };
        Some(TaskEnd { name: self.names.remove(&id).unwrap_or("task"), error })
    }

    /// Waits until a task ends or `shutdown` begins, then begins the shutdown, waits up to `grace` for the others and
    /// aborts the rest. Returns the first task that ended with an error.
    pub async fn run(mut self, shutdown: &Shutdown, grace: Duration) -> Option<TaskEnd> {
        let mut failed = None;
        tokio::select! {
            end = self.next_end() => failed = end.filter(|end| end.error.is_some() || !shutdown.has_begun()),
            () = shutdown.begun() => {}
        }
        shutdown.begin();
        let drain = async {
            while let Some(end) = self.next_end().await {
                if end.error.is_some() && failed.is_none() {
                    failed = Some(end);
                }
            }
        };
        if timeout(grace, drain).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "tasks did not end in time and are aborted");
            self.tasks.shutdown().await;
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_stops_the_others_and_is_returned() {
        let (shutdown, mut tasks) = (Shutdown::new(), TaskSet::new());
        let seen = shutdown.clone();
        tasks.spawn_infallible("waits", async move { seen.begun().await });
        tasks.spawn("fails", async { Err(std::io::Error::other("broken")) });
        let end = tasks.run(&shutdown, Duration::from_secs(5)).await.expect("one failed");
        assert_eq!((end.name, end.error.as_deref()), ("fails", Some("broken")));
    }

    #[tokio::test]
    async fn a_panic_is_reported_by_the_name_of_its_task() {
        let (shutdown, mut tasks) = (Shutdown::new(), TaskSet::new());
        tasks.spawn_infallible("panics", async { panic!("on purpose") });
        let end = tasks.run(&shutdown, Duration::from_secs(5)).await.expect("one failed");
        assert!(end.name == "panics" && end.error.is_some_and(|text| text.contains("panicked")));
    }

    #[tokio::test]
    async fn an_orderly_stop_is_no_failure() {
        let (shutdown, mut tasks) = (Shutdown::new(), TaskSet::new());
        let seen = shutdown.clone();
        tasks.spawn_infallible("waits", async move { seen.begun().await });
        shutdown.begin();
        assert!(tasks.run(&shutdown, Duration::from_secs(5)).await.is_none());
    }
}
