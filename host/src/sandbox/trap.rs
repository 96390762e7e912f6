//! From the error that ended a guest to a failure: which limit, which exit, or a trap with the plugin's stack.

use super::engine::STACK;
use crate::{
    failure::{Failure, Turn},
    service::{
        inert::{cut, inert, inert_line},
        limits::{Limits, Reached},
    },
    wit::Abort,
};
use wasmtime::{Trap, WasmBacktrace, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

/// Enough to see where it came from; a recursion repeats itself.
const MOST_FRAMES: usize = 24;
/// Generic names of Rust run to kilobytes.
const LONGEST_FRAME: usize = 200;

/// Errors of wasmtime that have no type, by a part of their text. A guest in the tests provokes each.
const CALL_BYTES: &str = "fuel allocated for hostcalls has been exhausted";
const RANDOM_BYTES: &str = "exceeds limit";

/// `said`: the last that the guest wrote to its standard error, where panics tell their reason.
pub(super) fn failure(plugin: &str, error: &wasmtime::Error, limits: &Limits, said: &str) -> Failure {
    let failure = match limit(error, limits) {
        Some(reached) => reached.failure(),
        None => other(plugin, error, said),
    };
    Failure {
        stack: stack(error),
        ..failure
    }
}

fn limit(error: &wasmtime::Error, limits: &Limits) -> Option<Reached> {
    if let Some(reached) = error.downcast_ref::<Reached>() {
        return Some(reached.clone());
    }
    if let Some(Trap::StackOverflow) = error.downcast_ref::<Trap>() {
        return Some(Reached::Stack { limit: STACK });
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return Some(Reached::Handles {
            limit: limits.handles,
        });
    }
    let told = |part: &str| error.chain().any(|cause| cause.to_string().contains(part));
    if told(CALL_BYTES) {
        return Some(Reached::Call {
            limit: limits.call_bytes,
        });
    }
    told(RANDOM_BYTES).then_some(Reached::Random {
        limit: limits.random_bytes,
    })
}

fn other(plugin: &str, error: &wasmtime::Error, said: &str) -> Failure {
    if let Some(Abort(failure)) = error.downcast_ref::<Abort>() {
        return failure.clone();
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        let message = format!(
            "plugin `{plugin}` called exit({}) instead of returning an outcome",
            exit.0
        );
        return Failure::new(Turn::Plugin, "plugin.exit", with_words(message, said))
            .help("a plugin ends by returning from `run`: with an outcome, or with an error that says what is wrong");
    }
    let reason = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => {
            "it panicked or reached code that it holds to be unreachable".into()
        }
        Some(trap) => trap.to_string(),
        None => inert_line(&cut(&error.root_cause().to_string(), 500)),
    };
    let message = format!("plugin `{plugin}` trapped: {reason}");
    Failure::new(Turn::Plugin, "plugin.trap", with_words(message, said))
        .help("this is a bug of the plugin: report it to its author with the stack")
}

fn with_words(message: String, said: &str) -> String {
    match said.trim() {
        "" => message,
        said => format!("{message}\n{}", inert(said)),
    }
}

fn stack(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let frames = backtrace.frames();
    let mut shown: Vec<String> = frames.iter().take(MOST_FRAMES).map(frame).collect();
    if frames.len() > MOST_FRAMES {
        shown.push(format!("and {} more", frames.len() - MOST_FRAMES));
    }
    shown
}

fn frame(frame: &wasmtime::FrameInfo) -> String {
    match frame.func_name() {
        Some(name) => inert_line(&cut(
            &format!("{:#}", rustc_demangle::demangle(name)),
            LONGEST_FRAME,
        )),
        None => format!(
            "function {} at offset {:#x}",
            frame.func_index(),
            frame.module_offset().unwrap_or_default()
        ),
    }
}
