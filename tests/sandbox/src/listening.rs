//! A loopback port that can be shut, connections and all, and opened again under its old number.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A port that stays ours between two listeners: a socket that is bound but does not listen
/// refuses connections and keeps others from being given the number.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    kept: Option<TcpSocket>,
}

impl Port {
    /// Takes the port; 0 takes any free one. Nothing listens yet.
    pub(crate) fn take(number: u16) -> io::Result<Self> {
        let kept = bind(number)?;
        Ok(Self { number: kept.local_addr()?.port(), kept: Some(kept) })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn listen(&mut self) -> io::Result<TcpListener> {
        let socket = match self.kept.take() {
            Some(socket) => socket,
            None => bind(self.number)?,
        };
        socket.listen(BACKLOG)
    }

    /// Holds the number again after its listener was dropped.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        self.kept = Some(bind(self.number)?);
        Ok(())
    }
}

/// Hands connections to axum in a form that can be cut from outside.
pub(crate) struct Cuttable {
    listener: TcpListener,
    all: CancellationToken,
    open: mpsc::Sender<Infallible>,
}

impl Cuttable {
    /// The receiver ends when the listener and every connection it accepted are gone.
    pub(crate) fn new(
        listener: TcpListener,
        all: CancellationToken,
    ) -> (Self, mpsc::Receiver<Infallible>) {
        let (open, closed) = mpsc::channel(1);
        (Self { listener, all, open }, closed)
    }
}

impl Listener for Cuttable {
    type Io = Connection;
    type Addr = Cut;

    async fn accept(&mut self) -> (Connection, Cut) {
        let (stream, _) = Listener::accept(&mut self.listener).await;
        // Without it a small answer waits for the client's delayed acknowledgement. Where the
        // option cannot be set the peer has already left, which the first read will find out.
        drop(stream.set_nodelay(true));
        let cut = Cut(self.all.child_token());
        let connection = Connection {
            stream,
            cut: Box::pin(cut.0.clone().cancelled_owned()),
            _open: self.open.clone(),
        };
        (connection, cut)
    }

    fn local_addr(&self) -> io::Result<Cut> {
        Ok(Cut(self.all.clone()))
    }
}

/// Cuts the connection that a request came by: no answer, no goodbye.
#[derive(Clone, Debug)]
pub(crate) struct Cut(CancellationToken);

impl Cut {
    pub(crate) fn now(&self) {
        self.0.cancel();
    }
}

impl Connected<IncomingStream<'_, Cuttable>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Cuttable>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A connection that fails every read and write from the moment it was cut.
pub(crate) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: mpsc::Sender<Infallible>,
}

impl Connection {
    /// Polled before every operation, so that whichever waits is woken by the cut.
    fn uncut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.uncut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.uncut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn bind(number: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, number)))?;
    Ok(socket)
}

const BACKLOG: u32 = 1024;
