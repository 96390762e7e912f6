//! `windlass.lock`: which bytes a project runs and what they asked for when somebody looked. JSON, sorted, to be committed.
//!
//! A built-in plugin comes with the executable: its request is held fast, its bytes are the executable's.

use super::{Component, Descriptor};
use crate::failure::{Failure, Turn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The file's name, in the project's root.
pub const FILE_NAME: &str = "windlass.lock";

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    plugins: BTreeMap<String, Entry>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub source: Source,
    pub id: String,
    pub version: String,
    pub abi: String,
    /// Of the component's bytes; not for built-in plugins, whose bytes differ with the compiler that built Windlass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `capability scope`, one a row.
    pub requests: BTreeSet<String>,
}

/// Where a plugin came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    BuiltIn,
    File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    windlass: u32,
    plugins: BTreeMap<String, Entry>,
}

/// What changed between a locked plugin and the one that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub is_other_digest: bool,
}

impl Lock {
    /// # Errors
    /// `lock.invalid`.
    pub fn read(text: &str) -> Result<Self, Failure> {
        let invalid = |problem: String| {
            let message = format!("`{FILE_NAME}` is not valid: {problem}");
            Failure::new(Turn::Operator, "lock.invalid", message)
                .help("restore it from version control, or delete it and run `windlass update`")
        };
        let file: File = serde_json::from_str(text)
            .map_err(|error| invalid(format!("line {}, column {}", error.line(), error.column())))?;
        if file.windlass != 1 {
            return Err(invalid(format!(
                "version {} of the format is unknown",
                file.windlass
            )));
        }
        Ok(Self {
            plugins: file.plugins,
        })
    }

    /// The file's text.
    pub fn write(&self) -> String {
        let file = File {
            windlass: 1,
            plugins: self.plugins.clone(),
        };
        let text = serde_json::to_string_pretty(&file).expect("texts and numbers always serialise");
        text + "\n"
    }

    /// Puts a plugin in as it is now.
    pub fn insert(&mut self, component: &Component, descriptor: &Descriptor) {
        self.plugins
            .insert(component.reference.clone(), entry(component, descriptor));
    }

    /// How a plugin differs from what is locked; `None` where it is not locked.
    pub fn difference(&self, component: &Component, descriptor: &Descriptor) -> Option<Difference> {
        let locked = self.plugins.get(&component.reference)?;
        let found = entry(component, descriptor);
        let rest = |left: &Entry, right: &Entry| left.requests.difference(&right.requests).cloned().collect();
        Some(Difference {
            added: rest(&found, locked),
            removed: rest(locked, &found),
            is_other_digest: locked.sha256 != found.sha256 || locked.source != found.source,
        })
    }

    /// What `--locked` asks of a plugin.
    ///
    /// # Errors
    /// `lock.unknown-plugin`, `lock.widened-request`, `lock.digest`.
    pub fn check(&self, component: &Component, descriptor: &Descriptor) -> Result<(), Failure> {
        let name = &component.reference;
        let refuse = |code: &str, message: String| {
            Err(Failure::new(Turn::Operator, code, message).help(format!(
                "look at what changed and accept it: windlass update {name}"
            )))
        };
        let Some(difference) = self.difference(component, descriptor) else {
            return refuse(
                "lock.unknown-plugin",
                format!("plugin `{name}` is not in `{FILE_NAME}`"),
            );
        };
        if !difference.added.is_empty() {
            let added = difference.added.join("; ");
            let message = format!("plugin `{name}` requests more than when it was locked: {added}");
            return refuse("lock.widened-request", message);
        }
        if difference.is_other_digest {
            let message = format!(
                "plugin `{name}` has other bytes than those locked: it is now {}",
                component.digest
            );
            return refuse("lock.digest", message);
        }
        Ok(())
    }
}

fn entry(component: &Component, descriptor: &Descriptor) -> Entry {
    let row = |row: &super::request::RequestRow| format!("{} {row}", row.capability);
    Entry {
        source: if component.is_built_in {
            Source::BuiltIn
        } else {
            Source::File
        },
        id: descriptor.id.clone(),
        version: descriptor.version.clone(),
        abi: descriptor.abi.clone(),
        sha256: (!component.is_built_in).then(|| component.digest.hex()),
        requests: descriptor.requests.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::request;
    use serde_json::json;

    fn plugin(bytes: &'static [u8], capabilities: &[&str], is_built_in: bool) -> (Component, Descriptor) {
        let component = Component {
            is_built_in,
            ..Component::new("./p.wasm", bytes)
        };
        let row = |name: &&str| {
            request::parse(&json!({ "capability": name, "from": "/a", "reason": "r" })).expect("valid")
        };
        let descriptor = Descriptor {
            id: "p".into(),
            version: "1".into(),
            abi: "0.1".into(),
            digest: component.digest,
            size: bytes.len(),
            description: "d".into(),
            requests: capabilities.iter().map(row).collect(),
            schema: json!({}),
            outputs: json!({}),
            imports: Vec::new(),
            exports: Vec::new(),
            has_planner: false,
            has_compensator: false,
            has_reconciler: false,
        };
        (component, descriptor)
    }

    #[test]
    fn what_locked_refuses() {
        let check = |bytes, capabilities: &[&str], is_built_in, code: Option<&str>| {
            let (component, descriptor) = plugin(b"one", &["http", "tcp"], is_built_in);
            let mut lock = Lock::default();
            lock.insert(&component, &descriptor);
            let lock = Lock::read(&lock.write()).expect("reads what it wrote");
            let (component, descriptor) = plugin(bytes, capabilities, is_built_in);
            let failed = lock.check(&component, &descriptor).err();
            assert_eq!(failed.map(|failure| failure.code).as_deref(), code);
        };
        check(b"one", &["tcp", "http"], false, None);
        check(b"two", &["http", "tcp"], false, Some("lock.digest"));
        check(b"two", &["http", "tcp"], true, None);
        check(
            b"one",
            &["http", "tcp", "env"],
            true,
            Some("lock.widened-request"),
        );
        check(b"two", &["http", "env"], false, Some("lock.widened-request"));
        let (component, descriptor) = plugin(b"one", &[], false);
        let failed = Lock::default()
            .check(&component, &descriptor)
            .expect_err("not locked");
        assert_eq!(failed.code, "lock.unknown-plugin");
    }

    #[test]
    fn damaged_files() {
        for text in [
            "",
            "[]",
            "{\"windlass\": 2, \"plugins\": {}}",
            "{\"windlass\": 1, \"plugins\": {}, \"x\": 1}",
        ] {
            assert_eq!(Lock::read(text).expect_err("damaged").code, "lock.invalid");
        }
    }
}
