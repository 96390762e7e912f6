//! P7: a plugin that is in the compile cache, from its file to code that can run, with its digest and the cache's authentication.

use crate::{
    project::{NOOP, Project, Result, said},
    statistics::{median, timed},
    table::{Quantity, Row},
};
use std::time::Duration;
use windlass::{
    catalog::Component,
    sandbox::{Sandbox, SandboxSettings},
};

const SAMPLES: usize = 50;

pub(crate) fn known_plugin(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    let bound = |micros| Quantity::Time(Duration::from_micros(micros));
    let small = measure(project, NOOP.to_vec())?;
    rows.push(Row::at_most(
        "P7",
        format!("load a known plugin of {}", Quantity::Bytes(NOOP.len() as u64)),
        small,
        bound(500),
    ));
    const LARGE: usize = 10 << 20;
    let large = measure(project, padded(NOOP, LARGE))?;
    rows.push(Row::at_most(
        "P7",
        "load a known plugin of 10 MiB",
        large,
        bound(5_500),
    ));
    Ok(())
}

fn measure(project: &Project, bytes: Vec<u8>) -> Result<Quantity> {
    let file = project.root().join("known.wasm");
    std::fs::write(&file, &bytes).map_err(|error| error.to_string())?;
    let mut times = Vec::new();
    for sample in 0..=SAMPLES {
        // A new process has loaded nothing; its engine is not what is measured.
        let settings = SandboxSettings {
            cache_directory: Some(project.root().join("cache")),
            compile_command: None,
        };
        let sandbox = Sandbox::new(settings).map_err(said)?;
        let (time, loaded) = timed(|| {
            let bytes = std::fs::read(&file).map_err(|error| error.to_string())?;
            let component = Component::new("./known.wasm", bytes);
            project.runtime.block_on(sandbox.load(&component)).map_err(said)
        });
        loaded?;
        // The first one compiles and fills the cache.
        if sample > 0 {
            times.push(time);
        }
    }
    Ok(Quantity::Time(median(&times)))
}

/// The component with a custom section behind it, as large as a plugin that carries an interpreter.
fn padded(component: &[u8], size: usize) -> Vec<u8> {
    let mut section = vec![3, b'p', b'a', b'd'];
    section.resize(size, 0);
    let mut bytes = component.to_vec();
    bytes.push(0);
    let mut length = section.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(section);
    bytes
}
