//! Requests to a store are tried again: after exponential back-off with jitter, within ten times the timeout.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::cold::ColdError;

/// How many times the timeout may pass without success.
const TIMEOUTS: u32 = 10;
/// The delay after the first attempt without success, which doubles.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// How often an answer that cannot be used is asked for again: it may be that of a proxy between.
const UNUSABLE: u32 = 3;

/// Attempts to get one thing from a store.
#[derive(Debug)]
pub(crate) struct Attempts {
    timeout: Duration,
    deadline: Instant,
    failures: u32,
    unusable: u32,
    is_denied: bool,
}

impl Attempts {
    /// Attempts of which each ends after `timeout`, and all after ten times that.
    pub(crate) fn new(timeout: Duration) -> Self {
        let deadline = Instant::now() + timeout * TIMEOUTS;
        Self { timeout, deadline, failures: 0, unusable: 0, is_denied: false }
    }

    /// Runs one attempt, or ends it at its deadline.
    pub(crate) async fn run<T>(
        &self,
        attempt: impl Future<Output = Result<T, ColdError>>,
    ) -> Result<T, ColdError> {
        let deadline = self.deadline.min(Instant::now() + self.timeout);
        timeout_at(deadline, attempt).await.unwrap_or_else(|_| {
            let text = format!("no answer within {}", humantime::format_duration(self.timeout));
            Err(ColdError::Unavailable(text))
        })
    }

    /// Time in which something was achieved does not count.
    pub(crate) fn extend(&mut self, time: Duration) {
        self.deadline += time;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// The error of the last one, if there is to be no other.
    pub(crate) async fn pause(&mut self, error: ColdError) -> Result<(), ColdError> {
        match error {
            ColdError::Unavailable(_) => {}
            ColdError::Failed(_) if self.unusable < UNUSABLE => self.unusable += 1,
            // The store reads its credentials again: no need to wait.
            ColdError::Denied(_) if !self.is_denied => {
                self.is_denied = true;
                return Ok(());
            }
            _ => return Err(error),
        }
        let delay = FIRST_DELAY.saturating_mul(1 << self.failures.min(16)).min(self.timeout);
        let delay = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
        if Instant::now() + delay >= self.deadline {
            return Err(error);
        }
        self.failures += 1;
        sleep(delay).await;
        Ok(())
    }
}

/// What a request to a store answers, which is made until it succeeds or there are to be no more attempts.
pub(crate) async fn retried<T, F: Future<Output = Result<T, ColdError>>>(
    timeout: Duration,
    mut request: impl FnMut() -> F,
) -> Result<T, ColdError> {
    let mut attempts = Attempts::new(timeout);
    loop {
        match attempts.run(request()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => attempts.pause(error).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// How often a request that always ends like this is made, and how long that takes.
    async fn attempts_at(error: ColdError) -> (u32, Duration) {
        let start = Instant::now();
        let mut count = 0;
        let ended = retried(TIMEOUT, || {
            count += 1;
            let error = error.clone();
            async { Err::<(), _>(error) }
        });
        assert_eq!(ended.await, Err(error.clone()));
        (count, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_asked_for_ten_times_the_timeout() {
        let (count, time) = attempts_at(ColdError::Unavailable("away".into())).await;
        assert!((10..40).contains(&count), "{count}");
        assert!((TIMEOUT * 8..=TIMEOUT * 10).contains(&time), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_are_refused_are_tried_twice_and_what_cannot_be_used_four_times() {
        assert_eq!(attempts_at(ColdError::Denied("403".into())).await, (2, Duration::ZERO));
        assert_eq!(attempts_at(ColdError::Failed("odd".into())).await.0, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_final_is_asked_once() {
        for error in [ColdError::NotFound, ColdError::Changed, ColdError::ReadOnly] {
            assert_eq!(attempts_at(error).await, (1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_an_answer_ends_after_the_timeout() {
        let start = Instant::now();
        let mut count = 0;
        let answer = retried(TIMEOUT, || {
            count += 1;
            let is_first = count == 1;
            async move {
                if is_first {
                    std::future::pending::<()>().await;
                }
                Ok(7)
            }
        });
        assert_eq!(answer.await, Ok(7));
        assert!((TIMEOUT..TIMEOUT * 2).contains(&start.elapsed()));
    }
}
