//! Lets a few log lines of one kind through per stretch of time, and counts the rest.

use std::time::Duration;

use tokio::time::Instant;

/// How long one stretch is.
const WINDOW: Duration = Duration::from_secs(10);

/// Lines per stretch: enough to see several different faults, too few to fill a disk.
const LINES_PER_WINDOW: u32 = 10;

/// Counts the lines of one kind.
#[derive(Debug)]
pub struct LogGate {
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl Default for LogGate {
    fn default() -> Self {
        Self::new()
    }
}

impl LogGate {
    /// A gate through which nothing has gone yet.
    pub fn new() -> Self {
        Self { since: Instant::now(), lines: 0, dropped: 0 }
    }

    /// Whether a line may be written now, and if so how many were left out before it.
    pub fn pass(&mut self) -> Option<u64> {
        let now = Instant::now();
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines == LINES_PER_WINDOW {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_over_the_bound_are_counted_and_told_in_the_next_stretch() {
        let mut gate = LogGate::new();
        for _ in 0..LINES_PER_WINDOW {
            assert_eq!(gate.pass(), Some(0));
        }
        assert_eq!((gate.pass(), gate.pass()), (None, None));
        tokio::time::advance(WINDOW).await;
        assert_eq!((gate.pass(), gate.pass()), (Some(2), Some(0)));
    }
}
