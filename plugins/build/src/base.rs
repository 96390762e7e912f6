//! An OCI image archive of the workspace into the layers and the configuration a new image starts from.
//!
//! The archive may come from a stranger: everything read from it is bounded, every document is checked against its digest,
//! and layers are found by digest, never by a path the archive chose.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use windlass_guest::Error;

use crate::blob::{Blob, Content};
use crate::config::Platform;
use crate::digest::Digest;
use crate::layer::LAYER_MEDIA_TYPE;

/// What a new image takes over.
#[derive(Debug, Default)]
pub(crate) struct Base {
    pub(crate) layers: Vec<Blob>,
    pub(crate) diff_ids: Vec<String>,
    /// The configuration as it was, for the keys a new image inherits.
    pub(crate) configuration: Map<String, Value>,
}

/// More than an image can use: Docker stops at 127 layers.
const MAX_ENTRIES: usize = 10_000;
const MAX_LAYERS: usize = 127;
/// Registries refuse manifests above 4 MiB.
const MAX_DOCUMENT: u64 = 4 << 20;
/// An index may point to an index (as `docker save` writes it); nothing real goes deeper.
const MAX_INDEX_DEPTH: usize = 3;

/// Opens the archive and picks the image for `platform`.
///
/// # Errors
/// `build.base-missing`, `build.base-invalid` (what is wrong with it, and where).
pub(crate) fn open(path: &Path, platform: &Platform) -> Result<Base, Error> {
    let mut archive = Archive::index(path)?;
    let index = archive.document("index.json", None)?;
    let manifest = archive.manifest(index, platform)?;
    let configuration = archive.referenced(manifest.get("config"))?;
    let layers = archive.layers(&manifest)?;
    let diff_ids =
        diff_ids(&configuration).ok_or_else(|| archive.invalid("its configuration names no `diff_ids`"))?;
    if diff_ids.len() != layers.len() {
        let text = format!(
            "its manifest has {} layers, its configuration {}",
            layers.len(),
            diff_ids.len()
        );
        return Err(archive.invalid(&text));
    }
    Ok(Base {
        layers,
        diff_ids,
        configuration,
    })
}

/// Where in the file each member is.
struct Archive {
    path: PathBuf,
    file: File,
    members: BTreeMap<String, Member>,
}

#[derive(Clone, Copy)]
struct Member {
    offset: u64,
    size: u64,
}

impl Archive {
    fn index(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| {
            Error::new(
                "build.base-missing",
                format!("cannot open the base {}: {error}", path.display()),
            )
            .help("`base` is the path of an OCI image archive, as `skopeo copy … oci-archive:FILE` writes it")
        })?;
        let mut archive = Self {
            path: path.to_owned(),
            file,
            members: BTreeMap::new(),
        };
        archive.members = archive.scan()?;
        Ok(archive)
    }

    fn scan(&self) -> Result<BTreeMap<String, Member>, Error> {
        let broken = |error: std::io::Error| self.invalid(&format!("it is not a tar file: {error}"));
        let mut file = &self.file;
        let length = file.seek(SeekFrom::End(0)).map_err(broken)?;
        file.seek(SeekFrom::Start(0)).map_err(broken)?;
        let mut tar = tar::Archive::new(file);
        let mut members = BTreeMap::new();
        for (count, entry) in tar.entries_with_seek().map_err(broken)?.enumerate() {
            let entry = entry.map_err(broken)?;
            if count >= MAX_ENTRIES {
                return Err(self.invalid(&format!("it has more than {MAX_ENTRIES} members")));
            }
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry
                .path()
                .map_err(broken)?
                .to_string_lossy()
                .trim_start_matches("./")
                .to_owned();
            let member = Member {
                offset: entry.raw_file_position(),
                size: entry.size(),
            };
            if member
                .offset
                .checked_add(member.size)
                .is_none_or(|end| end > length)
            {
                return Err(self.invalid(&format!("`{name}` is cut off")));
            }
            if members.insert(name.clone(), member).is_some() {
                return Err(self.invalid(&format!("it holds `{name}` twice")));
            }
        }
        Ok(members)
    }

    /// From an index to the manifest for `platform`, through nested indexes.
    fn manifest(
        &mut self,
        mut index: Map<String, Value>,
        platform: &Platform,
    ) -> Result<Map<String, Value>, Error> {
        for _ in 0..MAX_INDEX_DEPTH {
            let entries = index
                .get("manifests")
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let chosen = match entries {
                [only] => Some(only),
                several => several.iter().find(|entry| is_for(entry, platform)),
            };
            let Some(chosen) = chosen.cloned() else {
                let text = format!("it has no image for {}/{}", platform.os, platform.architecture);
                return Err(self.invalid(&text));
            };
            let document = self.referenced(Some(&chosen))?;
            if !document.contains_key("manifests") {
                return Ok(document);
            }
            index = document;
        }
        Err(self.invalid("its index is nested too deeply"))
    }

    fn layers(&self, manifest: &Map<String, Value>) -> Result<Vec<Blob>, Error> {
        let listed = manifest
            .get("layers")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if listed.len() > MAX_LAYERS {
            return Err(self.invalid(&format!("it has more than {MAX_LAYERS} layers")));
        }
        listed.iter().map(|descriptor| self.layer(descriptor)).collect()
    }

    fn layer(&self, descriptor: &Value) -> Result<Blob, Error> {
        let digest = self.digest(Some(descriptor))?;
        let member = self.member(&digest.blob_path())?;
        if descriptor.get("size").and_then(Value::as_u64) != Some(member.size) {
            return Err(self.invalid(&format!(
                "{} has another size than its manifest says",
                digest.as_str()
            )));
        }
        let media_type = descriptor
            .get("mediaType")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let media_type = match media_type {
            LAYER_MEDIA_TYPE
            | "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+zstd" => media_type,
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => LAYER_MEDIA_TYPE,
            "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
            other => return Err(self.invalid(&format!("a layer is of the unknown type `{other}`"))),
        };
        let content = Content::File {
            path: self.path.clone(),
            offset: member.offset,
        };
        Ok(Blob {
            digest,
            size: member.size,
            media_type: media_type.to_owned(),
            content,
        })
    }

    /// The document a descriptor points to.
    fn referenced(&mut self, descriptor: Option<&Value>) -> Result<Map<String, Value>, Error> {
        let digest = self.digest(descriptor)?;
        self.document(&digest.blob_path(), Some(&digest))
    }

    fn document(&mut self, name: &str, digest: Option<&Digest>) -> Result<Map<String, Value>, Error> {
        let member = self.member(name)?;
        if member.size > MAX_DOCUMENT {
            return Err(self.invalid(&format!("`{name}` is larger than {MAX_DOCUMENT} bytes")));
        }
        let mut bytes = Vec::new();
        let read = self.file.seek(SeekFrom::Start(member.offset)).and_then(|_| {
            let mut part = (&self.file).take(member.size);
            part.read_to_end(&mut bytes)
        });
        read.map_err(|error| self.invalid(&format!("`{name}` cannot be read: {error}")))?;
        if digest.is_some_and(|digest| *digest != Digest::of(&bytes)) {
            return Err(self.invalid(&format!("`{name}` is damaged: its bytes have another digest")));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(document)) => Ok(document),
            _ => Err(self.invalid(&format!("`{name}` is not a JSON object"))),
        }
    }

    fn digest(&self, descriptor: Option<&Value>) -> Result<Digest, Error> {
        let text = descriptor
            .and_then(|d| d.get("digest"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        Digest::parse(text).ok_or_else(|| self.invalid(&format!("`{text}` is not a SHA-256 digest")))
    }

    fn member(&self, name: &str) -> Result<Member, Error> {
        self.members
            .get(name)
            .copied()
            .ok_or_else(|| self.invalid(&format!("it has no `{name}`")))
    }

    fn invalid(&self, text: &str) -> Error {
        Error::new(
            "build.base-invalid",
            format!("the base {} cannot be used: {text}", self.path.display()),
        )
        .help("write it again with `skopeo copy … oci-archive:FILE`; it must not be compressed as a whole")
    }
}

fn is_for(descriptor: &Value, platform: &Platform) -> bool {
    let part = |key: &str| {
        descriptor
            .pointer(&format!("/platform/{key}"))
            .and_then(Value::as_str)
    };
    let variant = platform.variant.as_deref();
    part("os") == Some(&platform.os)
        && part("architecture") == Some(&platform.architecture)
        && (variant.is_none() || part("variant") == variant)
}

fn diff_ids(configuration: &Map<String, Value>) -> Option<Vec<String>> {
    let listed = configuration.get("rootfs")?.get("diff_ids")?.as_array()?;
    listed
        .iter()
        .map(|id| Digest::parse(id.as_str()?).map(|digest| digest.as_str().to_owned()))
        .collect()
}
