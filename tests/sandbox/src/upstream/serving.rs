//! The listener and its connections: requests in, scripts out.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::produced::{Attempt, Ended};
use super::respond::respond;
use super::route::Route;
use super::script::{Ending, Script};
use super::{Shared, http};

/// Aborts the server, and with it every connection, when it is dropped.
pub(super) struct Serving {
    stop: CancellationToken,
    server: JoinSet<()>,
}

impl Serving {
    pub(super) fn start(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let stop = CancellationToken::new();
        let mut server = JoinSet::new();
        let stopped = stop.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = accept(&listener, &shared, &mut connections) => {}
            }
            drop(listener);
            connections.shutdown().await;
        });
        Self { stop, server }
    }

    pub(super) async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.server.join_next().await {
            if let Err(error) = ended {
                log::error!("the upstream's server failed: {error}");
            }
        }
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &shared).await {
                        log::debug!("a connection to the upstream ended: {error}");
                    }
                });
            }
            Err(error) => log::warn!("the upstream could not accept: {error}"),
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until either side has had enough.
async fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(seen) = http::read_request(&mut reader, &mut writer).await? {
        let (path, _) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let route = path.strip_prefix(&*shared.options.prefix).and_then(Route::of);
        let route = route.filter(|_| seen.method == "POST");
        let mut attempt = Attempt::new(&seen, route.is_some(), shared);
        let script = respond(&seen, route, shared, &mut attempt.produced.model).await;
        let goes_on = perform(script, &mut reader, &mut writer, attempt).await?;
        if !goes_on || http::wants_close(&seen) {
            break;
        }
    }
    Ok(())
}

/// Plays the script while watching whether the client is still there. False when nothing more can
/// be said on this connection.
async fn perform(
    script: Script,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    mut attempt: Attempt<'_>,
) -> io::Result<bool> {
    let shared = attempt.shared;
    let ending = tokio::select! {
        // In this order, so that an answer that was sent whole never counts as interrupted.
        biased;
        ending = script.play(writer, shared, &mut attempt.produced) => ending,
        () = client_left(reader) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    attempt.produced.ended = match ending {
        Ok(Ending::KeepAlive) => Ended::Complete,
        Ok(Ending::Close) => Ended::Dropped,
        Err(_) => Ended::ClientGone,
    };
    drop(attempt);
    if ending.is_err() {
        shared.client_gone.send_modify(|count| *count += 1);
    }
    Ok(matches!(ending?, Ending::KeepAlive))
}

async fn client_left(reader: &mut BufReader<OwnedReadHalf>) {
    match reader.fill_buf().await {
        // The next request is waiting already: somebody is there.
        Ok(bytes) if !bytes.is_empty() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}
