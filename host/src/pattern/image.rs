//! References of images, `[registry/]repository[:tag][@digest]`, and patterns of them: taken apart once, here.

use super::Pattern;

/// The parts of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// With the registry, where it names one.
    pub name: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon behind the last slash stands before a tag; one in front of it is a registry's port.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:*".contains(&byte);
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(in_name);
        if !name.split('/').all(is_part) {
            return Err("a part of the name is empty or has a character that images cannot have");
        }
        if name.split('/').skip(1).any(|part| part.contains(':')) {
            return Err("only a registry, at the start, has a port");
        }
        let in_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
        if tag.is_some_and(|tag| tag.is_empty() || !tag.bytes().all(in_tag)) {
            return Err("the tag is empty or has a character that tags cannot have");
        }
        let in_digest = |byte: u8| byte.is_ascii_alphanumeric() || b":*".contains(&byte);
        if digest.is_some_and(|digest| digest.is_empty() || !digest.bytes().all(in_digest)) {
            return Err("the digest is empty or has a character that digests cannot have");
        }
        Ok(Self {
            name: name.into(),
            tag: tag.map(String::from),
            digest: digest.map(String::from),
        })
    }

    /// The reference that a container engine takes it for: without tag and digest, `latest`.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// The registry it names; none is the engine's default.
    pub fn registry(&self) -> Option<&str> {
        let (first, _) = self.name.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }

    /// As a value to be checked.
    pub fn pattern(&self) -> Pattern {
        Pattern::Image {
            name: self.name.clone(),
            tag: self.tag.clone(),
            digest: self.digest.clone(),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pattern().fmt(formatter)
    }
}

pub(super) fn parse(text: &str) -> Result<Pattern, &'static str> {
    Reference::parse(text).map(|reference| reference.pattern())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_references() {
        let check = |text: &str, registry: Option<&str>, latest: &str| {
            let reference = Reference::parse(text).expect("valid");
            assert_eq!(reference.registry(), registry, "{text}");
            assert_eq!(reference.or_latest().to_string(), latest);
        };
        check("nginx", None, "nginx:latest");
        check("prom/prometheus", None, "prom/prometheus:latest");
        check(
            "127.0.0.1:5000/a/b:1",
            Some("127.0.0.1:5000"),
            "127.0.0.1:5000/a/b:1",
        );
        check(
            "localhost/a@sha256:ab",
            Some("localhost"),
            "localhost/a@sha256:ab",
        );
        check(
            "r.example.com/a:1@sha256:ab",
            Some("r.example.com"),
            "r.example.com/a:1@sha256:ab",
        );
    }
}
