//! How an image is built.

use super::{Bytes, FileGrant, Ulimit};
use indexmap::IndexMap;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// An absolute directory, or a URL.
    pub context: Option<String>,
    /// Relative to the context.
    pub dockerfile: Option<String>,
    pub dockerfile_inline: Option<String>,
    pub target: Option<String>,
    /// Arguments; without a value the Dockerfile's own default counts.
    pub args: IndexMap<String, Option<String>>,
    /// Further contexts by name: absolute directories, URLs, `service:NAME`.
    pub additional_contexts: IndexMap<String, String>,
    pub labels: IndexMap<String, String>,
    pub tags: Vec<String>,
    pub platforms: Vec<String>,
    pub secrets: Vec<FileGrant>,
    pub ssh: IndexMap<String, Option<String>>,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    pub no_cache: bool,
    /// Stages that are built without the cache.
    pub no_cache_filter: Vec<String>,
    pub pull: bool,
    pub network: Option<String>,
    /// `HOST=ADDRESS`.
    pub extra_hosts: Vec<String>,
    pub isolation: Option<String>,
    pub privileged: bool,
    pub entitlements: Vec<String>,
    pub provenance: Option<String>,
    pub sbom: Option<String>,
    pub shm_size: Option<Bytes>,
    pub ulimits: IndexMap<String, Ulimit>,
}
