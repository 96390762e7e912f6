//! Objects of a bucket: looked at, listed and deleted. Their bytes go through [`crate::flow`].

use crate::bindings::objects::store;
use crate::{Error, stage};
use serde::{Deserialize, Serialize};

/// How a bucket is reached. Keys may be placeholders of secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Access {
    /// `<http|https>://<host>[:<port>]` of the server; that of AWS in the region where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The endpoint is the bucket's own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub virtual_host: bool,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// What requests are signed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
    /// Of temporary keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Known {
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: u64,
    /// The digest it was written with, by a Windlass.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The key of the effect that wrote it.
    #[serde(default)]
    pub written_by: Option<String>,
}

/// One of a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// `s3://<bucket>/<key>`.
    pub url: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: u64,
}

/// What a deletion is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deletion {
    /// The key of an effect: nothing is deleted that another has written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_by: Option<String>,
    /// Nobody depends on it any more: a run that fails later still counts as clean.
    #[serde(
        rename = "leaves",
        skip_serializing_if = "is_false",
        serialize_with = "as_leaves"
    )]
    pub is_additive: bool,
}

/// `None`: there is no such object.
pub fn head(url: &str, access: &Access) -> Result<Option<Known>, Error> {
    let known = store::head(url, &access.text())?;
    known.map(|known| stage::read(&known)).transpose()
}

/// The objects below a bucket or prefix, in the order of their keys.
pub fn list(prefix: &str, access: &Access) -> Result<Vec<Listed>, Error> {
    stage::read(&store::list(prefix, &access.text())?)
}

/// Whether it was there.
pub fn delete(url: &str, access: &Access, deletion: &Deletion) -> Result<bool, Error> {
    let options = serde_json::to_string(deletion).expect("options are plain values");
    Ok(store::delete(url, &access.text(), &options)?)
}

impl Access {
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("texts become JSON")
    }
}

/// Only called for what is additive.
fn as_leaves<S: serde::Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("additive")
}

fn is_false(value: &bool) -> bool {
    !value
}
