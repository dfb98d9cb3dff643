//! Asking an upstream beside the traffic whether it lives.
//!
//! A probe that fails is made once more at once, since one lost packet says little; when that
//! fails too the breaker opens. A good one closes it. Any answer below 500 is a good one, but 401,
//! 402 and 407, which say nothing of whether a request would be served.

use std::sync::Arc;
use std::time::Duration;

use super::health::Failure;
use super::{Upstream, Upstreams};

/// Who makes a probe's request: a GET in the way in which requests of clients are made.
pub trait Knock: Send + Sync {
    /// The status of the answer. Within `timeout`, or it has failed.
    fn knock(
        &self,
        upstream: &Arc<Upstream>,
        path: &str,
        timeout: Duration,
    ) -> impl Future<Output = Result<u16, Failure>> + Send;
}

/// Probes every upstream that is configured to be, each at its own pace. Never returns; it may be
/// dropped at any time.
pub async fn run(upstreams: &Upstreams, door: &impl Knock) {
    let probed = upstreams.all().filter(|upstream| upstream.probe.is_some());
    futures_util::future::join_all(probed.map(|upstream| each(upstream, door))).await;
    std::future::pending::<()>().await;
}

async fn each(upstream: &Arc<Upstream>, door: &impl Knock) {
    let Some(probe) = &upstream.probe else { return };
    let mut beat = tokio::time::interval(probe.every);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let path = upstream.path(&probe.path);
    loop {
        beat.tick().await;
        let mut found = alive(door.knock(upstream, &path, probe.timeout).await);
        if found.is_err() {
            found = alive(door.knock(upstream, &path, probe.timeout).await);
        }
        upstream.probed(found);
    }
}

fn alive(found: Result<u16, Failure>) -> Result<u16, Failure> {
    found.and_then(|status| if status < 500 { Ok(status) } else { Err(Failure::Status) })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::breaker::Position;
    use super::super::tests::configured;
    use super::*;
    use crate::config;

    /// Answers as it is told, and tells of each question.
    struct Door {
        answers: Mutex<Vec<Result<u16, Failure>>>,
        asked: tokio::sync::mpsc::UnboundedSender<String>,
    }

    impl Knock for Door {
        async fn knock(
            &self,
            upstream: &Arc<Upstream>,
            path: &str,
            timeout: Duration,
        ) -> Result<u16, Failure> {
            assert_eq!(timeout, Duration::from_secs(5));
            let answer = self.answers.lock().unwrap().pop();
            self.asked.send(format!("{}{path}", upstream.name)).unwrap();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    /// The position after these answers to a probe, the last one first.
    async fn after(answers: &[Result<u16, Failure>]) -> Position {
        let probe = config::Probe {
            path: "/models".to_owned(),
            every: Duration::from_millis(1),
            timeout: Duration::from_secs(5),
        };
        let mut config = configured("probed");
        config.health.probe = Some(probe);
        let upstreams = Upstreams::new(&[config, configured("left alone")]).unwrap();
        let (asked, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let door = Door { answers: Mutex::new(answers.to_vec()), asked };
        let watched = async {
            // One question more than there are answers: by then all of them have been reported.
            for _ in 0..=answers.len() {
                assert_eq!(seen.recv().await.unwrap(), "probed/v1/models");
            }
        };
        tokio::select! {
            () = run(&upstreams, &door) => {}
            () = watched => {}
        }
        upstreams.find("probed").unwrap().position()
    }

    #[tokio::test]
    async fn a_probe_that_fails_twice_opens_and_a_good_one_closes() {
        let down = Err(Failure::Unreachable);
        assert_eq!(after(&[Ok(200)]).await, Position::Closed);
        assert_eq!(after(&[Ok(404), down]).await, Position::Closed);
        assert_eq!(after(&[down, Err(Failure::TimedOut)]).await, Position::Open);
        assert_eq!(after(&[Ok(503), Ok(500)]).await, Position::Open);
        assert_eq!(after(&[Ok(401), down, down]).await, Position::Open);
        assert_eq!(after(&[down, down, Ok(200)]).await, Position::Open);
    }
}
