//! One connection, plain or with TLS, and one request on it at a time.

use crate::{Failure, answer, answer::Answer};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{io, net::SocketAddr, pin::Pin, sync::Arc, task::Poll, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where every connection of a load goes.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(crate) patience: Duration,
}

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    patience: Duration,
}

impl Connection {
    /// The words are those of the system, or of TLS.
    pub(crate) async fn open(peer: &Peer) -> Result<Self, (Failure, String)> {
        let connect = |error: io::Error| (Failure::Connect, error.to_string());
        let opening = async {
            let stream = TcpStream::connect(peer.address).await.map_err(connect)?;
            stream.set_nodelay(true).map_err(connect)?;
            let Some((config, name)) = &peer.tls else {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            };
            let secured = TlsConnector::from(config.clone())
                .connect(name.clone(), stream)
                .await;
            secured
                .map(|stream| Box::new(stream) as Box<dyn Stream>)
                .map_err(|error| (Failure::Tls, error.to_string()))
        };
        let stream = timeout(peer.patience, opening).await.unwrap_or_else(|_| {
            let words = format!("{} did not answer within {:?}", peer.address, peer.patience);
            Err((Failure::ConnectTimeout, words))
        })?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            patience: peer.patience,
        })
    }

    /// Whether the server has closed it, or has said something that nobody asked for. Does not wait.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let stream = &mut self.stream;
        std::future::poll_fn(|context| {
            let mut byte = [0; 1];
            let mut byte = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut *stream).poll_read(context, &mut byte).is_ready())
        })
        .await
    }

    pub(crate) async fn ask(
        &mut self,
        request: &[u8],
        method: &str,
        counted: Option<&str>,
    ) -> Result<Answer, Failure> {
        let Self {
            stream,
            buffer,
            patience,
        } = self;
        let asking = async {
            let written: io::Result<()> = async {
                stream.write_all(request).await?;
                stream.flush().await
            }
            .await;
            // A server may answer and close before it has read everything: what it said counts.
            let answer = answer::read(stream, buffer, method, counted).await;
            match (written, answer) {
                (Err(_), Err(_)) => Err(Failure::Write),
                (_, answer) => answer,
            }
        };
        timeout(*patience, asking)
            .await
            .unwrap_or(Err(Failure::AnswerTimeout))
    }
}
