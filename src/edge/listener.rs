//! The public listener: what surrounds a connection before its requests are looked at.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::{ALPN, Stream};
use pingora::proxy::{HttpProxy, ProxyHttp};
use pingora::server::ShutdownWatch;

use super::context::{Open, OpenCount};
use super::trailers::Trailing;

/// Pingora's proxy, with connections that can carry trailers and are counted.
pub(super) struct Public<P> {
    pub(super) proxy: Arc<HttpProxy<P>>,
    pub(super) connections: Arc<OpenCount>,
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
