//! `manifest.json`: what a backup holds and whether it was proved. Its presence is what makes a backup published.
//!
//! A manifest read from disk may have been written by anyone: names in it become paths only after they were checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::location::{Kind, is_name};

pub const FILE: &str = "manifest.json";

/// The version of this format.
const VERSION: u32 = 1;

/// A manifest with 10,000 tables is smaller; the host moves at most 1 MiB of a plugin's bytes.
pub const MAX_SIZE: u64 = 1 << 20;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    #[serde(rename = "windlass-backup")]
    version: u32,
    pub id: String,
    pub pipeline: String,
    pub stage: String,
    pub run: String,
    /// UTC, by the clock of the machine that made it.
    pub created: String,
    pub sources: BTreeMap<String, Record>,
    pub verified: bool,
    pub verified_how: String,
}

/// One source of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    pub kind: Kind,
    /// Beside the manifest.
    pub file: String,
    pub compression: Compression,
    /// Of the file.
    pub size: u64,
    pub sha256: String,
    /// Of what is in the file, uncompressed.
    pub content_size: u64,
    pub content_sha256: String,
    /// Rows by table, or keys by database, counted in the restored copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<BTreeMap<String, u64>>,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    Zstd,
    Gzip,
    None,
}

/// What a manifest is about, beside its sources.
#[derive(Debug, Clone)]
pub struct About {
    pub id: String,
    pub pipeline: String,
    pub stage: String,
    pub run: String,
    /// Seconds since 1970.
    pub created: u64,
}

impl Manifest {
    /// Unverified until something else is known.
    pub fn new(about: About, sources: BTreeMap<String, Record>) -> Self {
        let About {
            id,
            pipeline,
            stage,
            run,
            created,
        } = about;
        Self {
            version: VERSION,
            id,
            pipeline,
            stage,
            run,
            created: clock::format(created),
            sources,
            verified: false,
            verified_how: "not verified".to_owned(),
        }
    }

    /// Reads and checks the bytes of the manifest in the directory called `id`.
    ///
    /// # Errors
    /// A sentence without its subject: what is wrong with it.
    pub fn read(id: &str, bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|_| "is not the manifest of a Windlass backup".to_owned())?;
        if manifest.version != VERSION {
            return Err(format!(
                "has version {} of the format; this Windlass reads {VERSION}",
                manifest.version
            ));
        }
        if manifest.id != id {
            return Err(format!("is of another backup, `{}`", manifest.id));
        }
        if clock::parse(&manifest.created).is_none() {
            return Err("has a time of creation that is none".to_owned());
        }
        if manifest.sources.is_empty() {
            return Err("lists no source".to_owned());
        }
        match manifest
            .sources
            .iter()
            .find(|(name, record)| !record.is_sound(name))
        {
            Some((name, _)) => Err(format!(
                "describes its source `{name}` in a way this Windlass would not"
            )),
            None => Ok(manifest),
        }
    }

    /// For people too, so not on one line.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is plain values");
        bytes.push(b'\n');
        bytes
    }

    /// Seconds since 1970.
    pub fn created(&self) -> u64 {
        clock::parse(&self.created).unwrap_or(0)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.sources
            .values()
            .fold(0, |sum, record| sum.saturating_add(record.size))
    }
}

impl Record {
    /// The name a source's file has: nothing else is ever opened, whatever a manifest says.
    pub fn file_name(name: &str, kind: Kind, compression: Compression) -> String {
        let form = match kind {
            Kind::Sqlite => "sqlite",
            Kind::Directory | Kind::ContainerPath => "tar",
            Kind::Postgres => "sql",
            Kind::Redis => "rdb",
        };
        match compression {
            Compression::Zstd => format!("{name}.{form}.zst"),
            Compression::Gzip => format!("{name}.{form}.gz"),
            Compression::None => format!("{name}.{form}"),
        }
    }

    fn is_sound(&self, name: &str) -> bool {
        let file = Self::file_name(name, self.kind, self.compression);
        is_name(name) && self.file == file && is_digest(&self.sha256) && is_digest(&self.content_sha256)
    }
}

impl Compression {
    /// The name `windlass:flow` gives it.
    pub fn for_flow(self) -> Option<String> {
        match self {
            Self::Zstd => Some("zstd".to_owned()),
            Self::Gzip => Some("gzip".to_owned()),
            Self::None => None,
        }
    }
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sound() -> Value {
        let digest = format!("sha256:{}", "0".repeat(64));
        json!({
            "windlass-backup": 1, "id": "a", "pipeline": "p", "stage": "s", "run": "r",
            "created": "2026-11-23T21:00:00Z", "verified": true, "verified-how": "restored into scratch",
            "sources": { "app": {
                "kind": "sqlite", "file": "app.sqlite.zst", "compression": "zstd", "size": 3, "sha256": digest,
                "content-size": 4, "content-sha256": digest, "tables": { "users": 2 },
            } },
        })
    }

    fn check(pointer: &str, value: Value, expected: &str) {
        let mut document = sound();
        *document.pointer_mut(pointer).expect(pointer) = value;
        let error = Manifest::read("a", document.to_string().as_bytes()).expect_err(pointer);
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_manifest_survives_the_disk() {
        let manifest = Manifest::read("a", sound().to_string().as_bytes()).unwrap();
        assert_eq!(Manifest::read("a", &manifest.to_bytes()), Ok(manifest.clone()));
        assert_eq!(serde_json::to_value(&manifest).unwrap(), sound());
        assert_eq!((manifest.size(), manifest.created()), (3, 1_795_467_600));
    }

    #[test]
    fn strange_manifests_are_refused() {
        check("/windlass-backup", json!(2), "version 2");
        check("/id", json!("b"), "another backup");
        check("/created", json!("now"), "time of creation");
        check("/sources", json!({}), "no source");
        check("/sources/app/file", json!("../../etc/passwd"), "`app`");
        check("/sources/app/sha256", json!("sha256:0"), "`app`");
        check("/sources/app/kind", json!("mysql"), "not the manifest");
        assert!(Manifest::read("a", b"{").is_err());
    }
}
