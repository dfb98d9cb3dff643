//! Verbs that are acknowledged only when they are on the server's disk.
//!
//! They have a connection of their own, because `WAITAOF` (Redis 7.2) holds up whatever comes
//! after it on the same one. What waits while it waits shares the next one, so that with
//! `appendfsync everysec` a thousand deposits cost one second and not a thousand. With
//! `appendfsync always` a server answers when it has written, and `WAITAOF` returns at once;
//! older servers have no such command, and then that setting is the whole promise.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Pipeline, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};

use super::link::{Call, Connection, Errand, Link, can_be_helped, is_unknown_script};
use crate::ledger::Unavailable;

/// The queue to the one task that writes durably; cheap to clone.
#[derive(Clone)]
pub(super) struct Durable(mpsc::Sender<Job>);

/// One script call, ready to be sent either way.
struct Job {
    /// Commands of one place can go in one pipeline: the same shard, in a cluster.
    place: String,
    by_hash: redis::Cmd,
    whole: redis::Cmd,
    answer: oneshot::Sender<Result<Value, Unavailable>>,
}

impl Durable {
    pub(super) fn open(link: Link, runtime: &tokio::runtime::Handle) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        runtime.spawn(serve(link, jobs));
        Self(queue)
    }

    /// Answers when the server says that the effect is on disk, as far as it can say so.
    pub(super) async fn call(&self, place: String, call: &Call<'_>) -> Result<Value, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let job = Job { place, by_hash: call.by_hash(), whole: call.whole(), answer };
        let full = |_| Unavailable("too many durable writes wait".to_owned());
        self.0.try_send(job).map_err(full)?;
        answered.await.unwrap_or_else(|_| Err(Unavailable("the ledger has ended".to_owned())))
    }
}

async fn serve(link: Link, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut places: BTreeMap<String, Vec<Job>> = BTreeMap::new();
        for job in batch.drain(..) {
            places.entry(job.place.clone()).or_default().push(job);
        }
        let written = places.into_values().map(|jobs| write(&link, jobs));
        futures_util::future::join_all(written).await;
    }
}

async fn write(link: &Link, jobs: Vec<Job>) {
    let batch = Batch(jobs);
    let outcome = link.run(&batch).await;
    let failed = |error: RedisError| Unavailable(error.to_string());
    match outcome {
        Ok(answers) => {
            for (job, answer) in batch.0.into_iter().zip(answers) {
                // A caller that went away does not need the answer.
                let _gone = job.answer.send(answer.map_err(failed));
            }
        }
        Err(why) => {
            for job in batch.0 {
                let _gone = job.answer.send(Err(why.clone()));
            }
        }
    }
}

/// Jobs for one place.
struct Batch(Vec<Job>);

impl Errand for Batch {
    type Answer = Vec<RedisResult<Value>>;

    /// Everything in one pipeline, and the wait for the disk behind it.
    async fn run(&self, mut connection: Connection) -> RedisResult<Self::Answer> {
        let mut answers = send(&mut connection, self.0.iter().map(|job| &job.by_hash)).await?;
        if answers.iter().any(|answer| answer.as_ref().is_err_and(is_unknown_script)) {
            answers = send(&mut connection, self.0.iter().map(|job| &job.whole)).await?;
        }
        // What is wrong with the server is wrong with all of them: the link knows what helps.
        let helped = |answer: &RedisResult<Value>| answer.clone().err().filter(can_be_helped);
        answers.iter().find_map(helped).map_or(Ok(answers), Err)
    }
}

async fn send(
    connection: &mut Connection,
    commands: impl Iterator<Item = &redis::Cmd>,
) -> RedisResult<Vec<RedisResult<Value>>> {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command.clone());
    }
    pipeline.cmd("WAITAOF").arg(1).arg(0).arg(DISK_MAX.as_millis().to_string());
    let mut answers = connection.ask_all(&mut pipeline).await?;
    match answers.pop() {
        Some(Ok(Value::Array(synced))) if synced.first() == Some(&Value::Int(0)) => {
            Err(RedisError::from((redis::ErrorKind::Client, "not on the server's disk in time")))
        }
        // A server that does not know the command, or keeps no such file, has said all it can.
        _ => Ok(answers),
    }
}

/// Beyond it callers are refused at once.
const QUEUE_MAX: usize = 4_096;
const BATCH_MAX: usize = 256;

/// How long the server may take to write; `everysec` needs up to two seconds when the disk is slow.
pub(super) const DISK_MAX: Duration = Duration::from_secs(3);
