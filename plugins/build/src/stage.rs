//! The archives of a checked `with:` block into images: every layer and every base first, then one artifact per image.
//!
//! Files are read through the standard library (the sandbox decides which exist); everything else comes through
//! [`Workshop`]. Nothing is published before all images are known to be complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use windlass_guest::artifacts::Artifact;
use windlass_guest::{Effect, Error, Outcome};

use crate::archive::{self, ARCHIVE_MEDIA_TYPE};
use crate::base::{self, Base};
use crate::config::{Archive, Config, Platform, artifact_name, guest_path};
use crate::image::{self, Image};
use crate::{layer, tree};

/// What a build needs from outside.
pub trait Workshop {
    /// Opens a new artifact.
    ///
    /// # Errors
    /// Those of `windlass:artifacts/store.create`.
    fn create(&mut self, name: &str, media_type: &str) -> Result<Box<dyn ArtifactWriter>, Error>;

    /// One line of the stage's log.
    fn info(&mut self, message: &str);

    /// True once the run wants this stage to end.
    fn is_cancelled(&mut self) -> bool;
}

/// An artifact being written; dropped without `finish`, it never was.
pub trait ArtifactWriter {
    /// At most 1 MiB a call.
    ///
    /// # Errors
    /// Those of the store.
    fn write(&mut self, data: &[u8]) -> Result<(), Error>;

    /// Publishes it and answers what it is.
    ///
    /// # Errors
    /// Those of the store.
    fn finish(self: Box<Self>) -> Result<Artifact, Error>;
}

/// Builds every archive, with layers packed in `scratch`.
///
/// # Errors
/// `config.invalid`, `build.*`, `storage.failed`, `cancelled` and those of the artifact store.
pub fn run(config: &Config, scratch: &Path, workshop: &mut dyn Workshop) -> Result<Outcome, Error> {
    config.check()?;
    let mut images = Vec::new();
    for (name, archive) in config.archives() {
        images.push((name, prepare(name, archive, scratch, workshop)?));
    }
    let mut outputs = BTreeMap::new();
    for (name, image) in &images {
        outputs.insert((*name).clone(), publish(name, &config.tag, image, workshop)?);
    }
    let built = match images.as_slice() {
        [(name, image)] => format!("built {name}:{} ({})", config.tag, image.manifest.digest.as_str()),
        several => format!("built {} images with the tag {}", several.len(), config.tag),
    };
    Ok(Outcome {
        changed: true,
        summary: built,
        outputs,
        details: None,
    })
}

/// What [`run`] would do.
///
/// # Errors
/// `config.invalid`.
pub fn plan(config: &Config) -> Result<Vec<Effect>, Error> {
    config.check()?;
    let effect = |name: &String| Effect {
        action: "create",
        target: format!("artifact {}", artifact_name(name)),
        summary: format!("build the image {name}:{}", config.tag),
        capability: Some("artifacts.write".to_owned()),
        value: Some(artifact_name(name)),
    };
    Ok(config.archives().map(|(name, _)| effect(name)).collect())
}

fn prepare(
    name: &str,
    wanted: &Archive,
    scratch: &Path,
    workshop: &mut dyn Workshop,
) -> Result<Image, Error> {
    let platform = Platform::parse(&wanted.platform).map_err(|text| Error::new("config.invalid", text))?;
    let base = match &wanted.base {
        Some(path) => base::open(&guest_path(path), &platform)?,
        None => Base::default(),
    };
    let mut layers = Vec::new();
    for (number, source) in wanted.layers.iter().enumerate() {
        let entries = tree::list(&guest_path(&source.from), &source.to, wanted.base.is_none())?;
        let target = layer_file(scratch, name, number);
        let layer = layer::write(&entries, target, &mut || workshop.is_cancelled())?;
        let size = layer.blob.size;
        workshop.info(&format!(
            "{name}: layer {} of {}: {} entries of {} to {}, {size} bytes",
            number + 1,
            wanted.layers.len(),
            entries.len(),
            source.from,
            source.to
        ));
        layers.push(layer);
    }
    image::assemble(wanted, base, layers)
}

fn publish(name: &str, tag: &str, image: &Image, workshop: &mut dyn Workshop) -> Result<Value, Error> {
    let mut artifact = workshop.create(&artifact_name(name), ARCHIVE_MEDIA_TYPE)?;
    archive::write(image, name, tag, artifact.as_mut())?;
    let artifact = artifact.finish()?;
    let digest = image.manifest.digest.as_str();
    workshop.info(&format!("{name}:{tag} is {digest}"));
    Ok(json!({ "image": format!("{name}:{tag}"), "digest": digest, "artifact": artifact }))
}

/// Image names hold no `/`, so the file stays in `scratch`.
fn layer_file(scratch: &Path, image: &str, number: usize) -> PathBuf {
    scratch.join(format!("{image}.{number}.tar.gz"))
}
