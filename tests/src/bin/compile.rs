//! The compile child, as `windlass __compile` starts it.

fn main() -> std::process::ExitCode {
    windlass::sandbox::compile::child()
}
