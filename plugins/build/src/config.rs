//! The `with:` block of a `build` stage into checked values.
//!
//! Knows names, platforms and guest paths; refuses to know tar, digests or files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use windlass_guest::Error;

/// The whole block, as `plugin.json` describes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub images: BTreeMap<String, Image>,
    #[serde(default)]
    pub compose: Vec<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    pub project: Option<String>,
    pub tag: String,
    pub push_to: Option<String>,
    pub registry: Option<Registry>,
}

/// One image and the way it is built: an `archive`, or a `context` for the container engine.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Image {
    pub archive: Option<Archive>,
    pub context: Option<String>,
    pub dockerfile: Option<String>,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
    pub platform: Option<String>,
    pub network: Option<String>,
    pub repository: Option<String>,
}

/// Who logs in to the registry that is pushed to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Registry {
    pub username: String,
    pub password: String,
}

/// An image put together from directories, without a container engine.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Archive {
    pub layers: Vec<LayerSource>,
    pub entrypoint: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    pub working_directory: Option<String>,
    pub user: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    #[serde(default = "default_platform")]
    pub platform: String,
    pub base: Option<String>,
    #[serde(default = "default_created")]
    pub created: String,
}

/// One layer: what of the workspace goes where in the image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LayerSource {
    pub from: String,
    pub to: String,
}

/// `linux/arm64/v8`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

fn default_platform() -> String {
    "linux/amd64".to_owned()
}

fn default_created() -> String {
    "1970-01-01T00:00:00Z".to_owned()
}

impl Config {
    /// Everything that can be wrong with the block before a file is opened.
    ///
    /// # Errors
    /// `config.invalid`, naming the key.
    pub fn check(&self) -> Result<(), Error> {
        if self.images.is_empty() && self.compose.is_empty() {
            return Err(invalid("images", "names no image, and there is no `compose`"));
        }
        if !is_tag(&self.tag) {
            let text = format!(
                "`{}` is not an image tag (letters, digits, `_`, `.`, `-`; 128 at most)",
                self.tag
            );
            return Err(invalid("tag", &text));
        }
        if let Some(prefix) = self.push_to.as_deref().filter(|prefix| !is_prefix(prefix)) {
            let text =
                format!("`{prefix}` is not a registry like `registry.example.com` or `127.0.0.1:5000/team`");
            return Err(invalid("push-to", &text));
        }
        for (name, image) in &self.images {
            if !is_name(name) {
                let text = "is not an image name (lower-case letters and digits, joined by `.`, `_` or `-`; 80 at most)";
                return Err(invalid(&format!("images.{name}"), text));
            }
            match (&image.archive, &image.context) {
                (Some(archive), None) => archive.check(name)?,
                (None, Some(_)) => {}
                _ => {
                    let text =
                        "is not exactly one of `context` (built by the container engine) and `archive`";
                    return Err(invalid(&format!("images.{name}"), text));
                }
            }
            let repository = image.repository.as_deref().filter(|text| !is_repository(text));
            if let Some(text) = repository {
                let text = format!("`{text}` is not the name of an image, without registry and tag");
                return Err(invalid(&format!("images.{name}.repository"), &text));
            }
        }
        Ok(())
    }

    /// The images that are put together without a container engine.
    pub(crate) fn archives(&self) -> impl Iterator<Item = (&String, &Archive)> {
        self.images
            .iter()
            .filter_map(|(name, image)| Some((name, image.archive.as_ref()?)))
    }

    /// Whether the container engine has anything to do.
    pub(crate) fn needs_engine(&self) -> bool {
        !self.compose.is_empty() || self.images.values().any(|image| image.context.is_some())
    }
}

impl Archive {
    fn check(&self, name: &str) -> Result<(), Error> {
        let at = |key: &str| format!("images.{name}.archive.{key}");
        if self.layers.is_empty() {
            return Err(invalid(&at("layers"), "holds no layer"));
        }
        Platform::parse(&self.platform).map_err(|text| invalid(&at("platform"), &text))?;
        if !is_instant(&self.created) {
            return Err(invalid(
                &at("created"),
                "is not a time like `1970-01-01T00:00:00Z`",
            ));
        }
        for port in &self.exposed_ports {
            port_key(port).map_err(|text| invalid(&at("exposed-ports"), &text))?;
        }
        Ok(())
    }
}

impl Platform {
    /// `os/architecture` or `os/architecture/variant`.
    ///
    /// # Errors
    /// A sentence without its subject: what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            _ => return Err(format!("`{text}` is not a platform like `linux/amd64`")),
        };
        if !parts.iter().all(|part| plain(part)) {
            return Err(format!("`{text}` is not a platform like `linux/amd64`"));
        }
        Ok(Self {
            os: (*os).to_owned(),
            architecture: (*architecture).to_owned(),
            variant,
        })
    }
}

/// The path a guest sees: relative paths of the pipeline file live under `/workspace`.
pub fn guest_path(text: &str) -> PathBuf {
    PathBuf::from("/workspace").join(text.strip_prefix("./").unwrap_or(text))
}

/// `8080` or `8080/udp` as the key an image's configuration wants.
///
/// # Errors
/// A sentence without its subject.
pub fn port_key(text: &str) -> Result<String, String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let valid =
        number.parse::<u16>().is_ok_and(|port| port > 0) && matches!(protocol, "tcp" | "udp" | "sctp");
    if valid {
        Ok(format!("{number}/{protocol}"))
    } else {
        Err(format!("`{text}` is not a port like `8080` or `53/udp`"))
    }
}

/// The name of the artifact an image becomes. The request row in `plugin.json` says the same.
pub fn artifact_name(image: &str) -> String {
    format!("image-{image}.tar")
}

fn is_name(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    // The artifact's name, `image-NAME.tar`, must stay within 100 characters.
    let ends = text.bytes().next().is_some_and(alphanumeric) && text.bytes().last().is_some_and(alphanumeric);
    ends && text.len() <= 80
        && text
            .bytes()
            .all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn is_tag(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first
        && text.len() <= 128
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// `registry[:port][/path]`: what stands before an image's name.
fn is_prefix(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'[' | b']');
    !text.is_empty()
        && text
            .split('/')
            .enumerate()
            .all(|(at, part)| !part.is_empty() && part.bytes().all(allowed) && (at == 0 || is_name(part)))
}

/// An image's name without registry, tag and digest.
pub(crate) fn is_repository(text: &str) -> bool {
    text.split('/').all(is_name)
}

fn is_instant(text: &str) -> bool {
    let shape = b"0000-00-00T00:00:00Z";
    text.len() == shape.len()
        && text
            .bytes()
            .zip(shape)
            .all(|(b, s)| if *s == b'0' { b.is_ascii_digit() } else { b == *s })
}

fn invalid(key: &str, text: &str) -> Error {
    Error::new("config.invalid", format!("`{key}` {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(patch: Value, wrong: Option<&str>) {
        let mut archive = json!({ "layers": [{ "from": "app", "to": "/app" }] });
        let mut with = json!({ "tag": "1.0", "images": {} });
        for (key, value) in patch.as_object().expect("a patch is an object") {
            match key.as_str() {
                "name" | "tag" => with[key] = value.clone(),
                _ => archive[key] = value.clone(),
            }
        }
        let name = with
            .as_object_mut()
            .unwrap()
            .remove("name")
            .unwrap_or(json!("web"));
        with["images"][name.as_str().unwrap()] = json!({ "archive": archive });
        let answer = serde_json::from_value::<Config>(with)
            .expect("it has the right shape")
            .check();
        match wrong {
            None => assert_eq!(answer, Ok(())),
            Some(text) => {
                let error = answer.expect_err("this block is wrong");
                assert!(error.message.contains(text), "{}", error.message);
            }
        }
    }

    #[test]
    fn names_tags_and_platforms_are_checked() {
        check(json!({}), None);
        check(
            json!({ "platform": "linux/arm64/v8", "exposed-ports": ["8080", "53/udp"] }),
            None,
        );
        check(json!({ "name": "Web" }), Some("images.Web"));
        check(json!({ "name": "../web" }), Some("is not an image name"));
        check(json!({ "tag": "a b" }), Some("`tag`"));
        check(json!({ "tag": "" }), Some("`tag`"));
        check(json!({ "platform": "amd64" }), Some("linux/amd64"));
        check(json!({ "platform": "linux/../x" }), Some("platform"));
        check(json!({ "exposed-ports": ["0"] }), Some("exposed-ports"));
        check(json!({ "exposed-ports": ["80/http"] }), Some("exposed-ports"));
        check(json!({ "created": "yesterday" }), Some("created"));
        check(json!({ "layers": [] }), Some("layers"));
    }

    #[test]
    fn relative_paths_are_the_workspace() {
        assert_eq!(guest_path("dist/app"), PathBuf::from("/workspace/dist/app"));
        assert_eq!(guest_path("./dist"), PathBuf::from("/workspace/dist"));
        assert_eq!(guest_path("/mnt/base.tar"), PathBuf::from("/mnt/base.tar"));
    }
}
