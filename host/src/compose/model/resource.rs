//! What services share: networks, volumes, secrets and configs. `name` is what each is called outside of the project.

use indexmap::IndexMap;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub name: String,
    /// It is there already: it is neither created nor removed.
    #[serde(default)]
    pub external: bool,
    pub driver: Option<String>,
    #[serde(default)]
    pub driver_opts: IndexMap<String, String>,
    #[serde(default)]
    pub internal: bool,
    #[serde(default)]
    pub attachable: bool,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub ipam: Option<serde_json::Value>,
    #[serde(default)]
    pub labels: IndexMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub name: String,
    /// It is there already: it is neither created nor removed.
    #[serde(default)]
    pub external: bool,
    pub driver: Option<String>,
    #[serde(default)]
    pub driver_opts: IndexMap<String, String>,
    #[serde(default)]
    pub labels: IndexMap<String, String>,
}

/// Where a secret comes from; its value is in no compose file. Exactly one of `external`, `file`, `environment` and
/// `driver` is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    pub name: String,
    #[serde(default)]
    pub external: bool,
    /// Absolute.
    pub file: Option<String>,
    /// The name of a variable.
    pub environment: Option<String>,
    pub driver: Option<String>,
    #[serde(default)]
    pub driver_opts: IndexMap<String, String>,
    pub template_driver: Option<String>,
    #[serde(default)]
    pub labels: IndexMap<String, String>,
}

/// As [`Secret`], for what may be seen; the text itself can stand in `content`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub name: String,
    #[serde(default)]
    pub external: bool,
    /// Absolute.
    pub file: Option<String>,
    /// The name of a variable.
    pub environment: Option<String>,
    pub content: Option<String>,
    pub template_driver: Option<String>,
    #[serde(default)]
    pub labels: IndexMap<String, String>,
}
