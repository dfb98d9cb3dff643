//! The public listener: what surrounds a connection before its requests are looked at.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::protocols::http::v2::server::H2Options;
use pingora::protocols::{ALPN, Stream};
use pingora::proxy::{HttpProxy, ProxyHttp};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;

use super::context::{Open, OpenCount};
use super::trailers::Trailing;

/// Pingora's proxy, with connections that can carry trailers and are counted.
pub(super) struct Public<P> {
    proxy: Arc<HttpProxy<P>>,
    connections: Arc<OpenCount>,
}

impl<P: ProxyHttp> Public<P> {
    pub(super) fn new(
        edge: P,
        conf: &Arc<ServerConf>,
        h2c: bool,
        connections: Arc<OpenCount>,
    ) -> Self {
        let mut proxy = pingora::proxy::http_proxy(conf, edge);
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        options.h2_idle_timeout = Some(H2_IDLE_MAX);
        proxy.server_options = Some(options);
        proxy.h2_options = Some(h2_options());
        Self { proxy: Arc::new(proxy), connections }
    }
}

/// What one HTTP/2 connection may cost. Its bounds are told to the client, who is reset or hung up
/// on beyond them.
fn h2_options() -> H2Options {
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
        .initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buffer_size(H2_SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(H2_RESETS_UNSEEN_MAX)
        .max_local_error_reset_streams(Some(H2_ERRORS_MAX));
    options
}

#[async_trait]
impl<P> ServerApp for Public<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let _open = Open::new(&self.connections);
        let stream: Stream = match stream.selected_alpn_proto() {
            Some(ALPN::H2) => stream,
            _ => Box::new(Trailing::new(stream)),
        };
        self.proxy.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.proxy.cleanup().await;
    }
}

/// Requests that are open at once on one connection. A client that sends more has them refused, and
/// sends them again.
const H2_STREAMS_MAX: u32 = 100;

/// A head as HTTP/2 counts it: 64 KiB as they are on HTTP/1.1, and 32 bytes more per line of 512.
/// A longer one is answered 431, one that does not end ends its connection.
const H2_HEADER_LIST_BYTES_MAX: u32 = 80 << 10;

/// What a client may send ahead of us in one request: an upload of 10 MB waits for few windows.
const H2_STREAM_WINDOW: u32 = 1 << 20;

/// The same on all requests of a connection, which is what it can make us hold.
const H2_CONNECTION_WINDOW: u32 = 4 << 20;

/// What is held of one answer for a client that reads slowly; then its upstream waits.
const H2_SEND_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Requests that were reset before we looked at them. More at once is an attack ("rapid reset"),
/// and ends the connection.
const H2_RESETS_UNSEEN_MAX: usize = 20;

/// Streams that we reset because the client broke the protocol; beyond it the connection ends.
const H2_ERRORS_MAX: usize = 100;

/// As long as an HTTP/1.1 connection without a request is kept.
const H2_IDLE_MAX: Duration = Duration::from_secs(60);
