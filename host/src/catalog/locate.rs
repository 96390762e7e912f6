//! From a reference (`migrate`, `./my.wasm`) to the component's bytes.

use super::Digest;
use crate::{
    diagnostic::did_you_mean,
    failure::{Failure, Turn},
    pipeline::model::PluginReference,
};
use bytes::Bytes;
use std::{fs::File, io::Read, path::Path};

/// The largest component that is read. A Python guest with its standard library is 18 MB.
const LARGEST: u64 = 64 << 20;

mod embedded {
    //! Made by the build script: the built-in plugins' names and bytes.
    include!(concat!(env!("OUT_DIR"), "/built_in.rs"));
}

/// The bytes of a plugin.
#[derive(Clone, Debug)]
pub struct Component {
    /// As the pipeline names it.
    pub reference: String,
    pub bytes: Bytes,
    pub digest: Digest,
    pub is_built_in: bool,
}

impl Component {
    pub fn new(reference: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        Self {
            reference: reference.into(),
            bytes,
            digest,
            is_built_in: false,
        }
    }
}

/// The names of the built-in plugins.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    embedded::BUILT_IN.iter().map(|(name, _)| *name)
}

/// Reads a plugin; a file's path is relative to `root`.
///
/// # Errors
/// `plugin.missing`, `plugin.unreadable`, `plugin.too-large`, `plugin.unsupported-source`.
pub fn locate(reference: &PluginReference, root: &Path) -> Result<Component, Failure> {
    match reference {
        PluginReference::BuiltIn(name) => locate_built_in(name),
        PluginReference::File(path) => {
            let bytes = read_file(&root.join(path))?;
            Ok(Component::new(reference.to_string(), bytes))
        }
        PluginReference::Oci(_) => {
            let message = format!("`{reference}` cannot be fetched: registries are not supported yet");
            Err(
                Failure::new(Turn::PipelineAuthor, "plugin.unsupported-source", message)
                    .help("use a component file of the project: `uses: ./plugins/name.wasm`"),
            )
        }
    }
}

fn locate_built_in(name: &str) -> Result<Component, Failure> {
    if let Some((_, bytes)) = embedded::BUILT_IN.iter().find(|(known, _)| *known == name) {
        return Ok(Component {
            is_built_in: true,
            ..Component::new(name, Bytes::from_static(bytes))
        });
    }
    let known: Vec<&str> = built_in().collect();
    let help = match did_you_mean(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "built in are: {}; a file starts with `./`, `../` or `/`",
            known.join(", ")
        ),
    };
    let message = format!("there is no built-in plugin `{name}`");
    Err(Failure::new(Turn::PipelineAuthor, "plugin.missing", message).help(help))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => "plugin.missing",
            _ => "plugin.unreadable",
        };
        let message = format!("the plugin `{shown}` cannot be read: {error}");
        Failure::new(Turn::PipelineAuthor, code, message)
            .help("the path is relative to the project's root; build the plugin first, or mend `uses:`")
    };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        let message = format!("the plugin `{shown}` is not a file");
        return Err(Failure::new(Turn::PipelineAuthor, "plugin.unreadable", message)
            .help("`uses:` names one component file (.wasm)"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("the plugin `{shown}` is larger than {} MiB", LARGEST >> 20);
        return Err(Failure::new(Turn::Plugin, "plugin.too-large", message)
            .help("build it with optimisation and without debug information"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found() {
        let root = tempfile::tempdir().expect("temporary");
        std::fs::write(root.path().join("a.wasm"), b"bytes").expect("written");
        let check = |reference: PluginReference, code: Option<&str>| {
            let failed = locate(&reference, root.path()).err();
            assert_eq!(
                failed.as_ref().map(|failure| failure.code.as_str()),
                code,
                "{reference}"
            );
            failed.and_then(|failure| failure.help).unwrap_or_default()
        };
        check(PluginReference::File("a.wasm".into()), None);
        check(PluginReference::File("b.wasm".into()), Some("plugin.missing"));
        check(PluginReference::File(".".into()), Some("plugin.unreadable"));
        check(
            PluginReference::Oci("a/b:1".into()),
            Some("plugin.unsupported-source"),
        );
        for name in built_in() {
            check(PluginReference::BuiltIn(name.into()), None);
            let help = check(
                PluginReference::BuiltIn(format!("{name}x")),
                Some("plugin.missing"),
            );
            assert!(help.contains(name), "{help}");
        }
    }
}
