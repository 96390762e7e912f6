//! WASI 0.2 and 0.3: always linked, inert until a grant puts something into the context. No network but our HTTP connector,
//! no directory but the mounts, no variable but those granted.

use super::{
    State,
    events::Log,
    files::Mounts,
    limits::{Limits, Reached, Tripwire, Usage},
    stdio::Lines,
};
use crate::{event::LogLevel, failure::Failure};
use futures::future::BoxFuture;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use wasmtime::component::Linker;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

/// Sends one request of a guest: checks the grant, swaps secrets into headers, resolves, filters, dials.
pub trait HttpSender: Send + Sync {
    fn send(
        &self,
        request: http::Request<WasiBody>,
        options: RequestOptions,
    ) -> BoxFuture<'static, Result<http::Response<WasiBody>, HttpError>>;
}

/// The contexts of one attempt.
pub(crate) struct Wasi {
    context: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    spoken: Spoken,
}

/// What a guest said and took through WASI. Clones share it, and outlive the store.
#[derive(Clone)]
pub(crate) struct Spoken {
    output: Lines,
    errors: Lines,
    random: Arc<AtomicU64>,
}

impl Wasi {
    pub(crate) fn new(
        environment: &[(String, String)],
        mounts: &Mounts,
        log: &Log,
        http: Option<Arc<dyn HttpSender>>,
        limits: &Limits,
        tripwire: &Tripwire,
    ) -> Result<Self, Failure> {
        let output = Lines::new(log.clone(), LogLevel::Info);
        let errors = Lines::new(log.clone(), LogLevel::Warn);
        let random = Arc::new(AtomicU64::new(0));
        let meter = || Meter::new(random.clone(), limits.random_bytes, tripwire.clone());
        let mut builder = WasiCtxBuilder::new();
        builder
            .envs(environment)
            .stdout(output.clone())
            .stderr(errors.clone())
            .secure_random(meter())
            .insecure_random(meter())
            .max_random_size(limits.random_bytes);
        mounts.preopen(&mut builder)?;
        Ok(Self {
            context: builder.build(),
            http: WasiHttpCtx::new(),
            hooks: Hooks(http),
            spoken: Spoken {
                output,
                errors,
                random,
            },
        })
    }

    pub(crate) fn spoken(&self) -> Spoken {
        self.spoken.clone()
    }
}

impl Spoken {
    /// Sends the unfinished lines of standard output and error.
    pub(crate) async fn finish(&self) {
        self.output.finish().await;
        self.errors.finish().await;
    }

    /// The last that the guest wrote to standard error.
    pub(crate) fn last_words(&self) -> String {
        self.errors.last()
    }

    pub(crate) fn usage(&self, usage: &mut Usage) {
        usage.insert("random-bytes".into(), self.random.load(Ordering::Relaxed));
    }
}

/// Everything of WASI that a component may import.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi.context,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.wasi.http,
            table: &mut self.table,
            hooks: &mut self.wasi.hooks,
        }
    }
}

/// Hands requests to the connector; without one every request is denied.
struct Hooks(Option<Arc<dyn HttpSender>>);

type Processed = Box<dyn Future<Output = Result<(), HttpError>> + Send>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_processed: Processed,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Processed), HttpError>> + Send> {
        let Some(sender) = &self.0 else {
            return Box::new(async { Err(HttpError::HttpRequestDenied) });
        };
        let sent = sender.send(request, options.unwrap_or_default());
        Box::new(async move {
            let response = sent.await?;
            Ok((response, Box::new(async { Ok(()) }) as Processed))
        })
    }
}

/// Random bytes from the operating system, counted.
#[derive(Clone)]
struct Meter {
    used: Arc<AtomicU64>,
    limit: u64,
    tripwire: Tripwire,
    /// Bytes fetched ahead: WASI draws a list byte by byte, and a system call for each would take a second a megabyte.
    ahead: [u8; 256],
    /// How much of `ahead` is left.
    left: usize,
}

impl Meter {
    fn new(used: Arc<AtomicU64>, limit: u64, tripwire: Tripwire) -> Self {
        Self {
            used,
            limit,
            tripwire,
            ahead: [0; 256],
            left: 0,
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.left == 0 {
                getrandom::fill(&mut self.ahead).expect("the operating system has a source of randomness");
                self.left = self.ahead.len();
            }
            self.left -= 1;
            *byte = std::mem::take(&mut self.ahead[self.left]);
        }
    }

    fn count(&self, bytes: usize) {
        let used = self.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if used > self.limit {
            self.tripwire.trip(Reached::Random { limit: self.limit });
        }
    }
}

impl rand_core::TryRng for Meter {
    type Error = Infallible;

    /// WASI asks for 32 bits only to make one byte of them.
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.count(1);
        Ok(u32::from_le_bytes(self.take()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.count(8);
        Ok(u64::from_le_bytes(self.take()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.count(bytes.len());
        self.fill(bytes);
        Ok(())
    }
}
