//! A reply's body on its way to the guest: bounded in size and in the time between its pieces.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::Error as HttpError;

/// Ends with an error when more comes than allowed, or nothing for too long.
pub(in crate::service) struct ReplyBody {
    incoming: Incoming,
    limit: u64,
    left: u64,
    between: Duration,
    patience: Pin<Box<Sleep>>,
    /// The connection lives as long as its reply is read, and no longer.
    _connection: AbortOnDropHandle<()>,
}

impl ReplyBody {
    /// At most `limit` bytes, and no longer than `between` without any.
    pub(in crate::service) fn new(
        incoming: Incoming,
        limit: u64,
        between: Duration,
        connection: AbortOnDropHandle<()>,
    ) -> Self {
        Self {
            incoming,
            limit,
            left: limit,
            between,
            patience: Box::pin(sleep(between)),
            _connection: connection,
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, HttpError> {
        let size = frame.data_ref().map_or(0, Bytes::len) as u64;
        let left = self.left.checked_sub(size);
        self.left = left.ok_or(HttpError::HttpResponseBodySize(Some(self.limit)))?;
        let next = Instant::now() + self.between;
        self.patience.as_mut().reset(next);
        Ok(frame)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.take(frame))),
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(HttpError::HttpResponseIncomplete))),
            Poll::Pending => match self.patience.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(HttpError::ConnectionReadTimeout))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
