//! From a component's bytes to what it says of itself: metadata, imports, exports. Reads with a parser and runs nothing;
//! whatever the bytes are, it ends in a [`Descriptor`] or in a failure that names the plugin.

use super::{
    Component, Digest,
    request::{self, RequestRow},
};
use crate::{
    capability::{ABI, ALWAYS_LINKED},
    failure::{Failure, Turn},
};
use serde_json::{Map, Value as Json};
use wasmparser::{Encoding, Parser, Payload};

/// The custom section with the metadata.
const SECTION: &str = "windlass:plugin";
/// Schemas with many descriptions are some tens of kilobytes.
const LARGEST_METADATA: usize = 256 << 10;
/// Components hold a few levels of modules and adapters.
const DEEPEST: usize = 16;
/// A Python guest has about forty imports.
const MOST_NAMES: usize = 1_000;
/// Interface names have under a hundred bytes.
const LONGEST_NAME: usize = 200;

/// What a plugin is, without running it.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    pub id: String,
    pub version: String,
    /// `major.minor`, taken from the version of the lifecycle export.
    pub abi: String,
    pub digest: Digest,
    pub size: usize,
    pub description: String,
    pub requests: Vec<RequestRow>,
    /// JSON Schema of `with:`.
    pub schema: Json,
    /// JSON Schema of the outputs.
    pub outputs: Json,
    /// Names with versions.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub has_planner: bool,
    pub has_compensator: bool,
    pub has_reconciler: bool,
}

impl Descriptor {
    /// Imports of ours that no request covers: a plugin with one is refused.
    pub fn undeclared(&self) -> impl Iterator<Item = &str> {
        self.imports
            .iter()
            .map(String::as_str)
            .filter(|import| import.starts_with("windlass:"))
            .filter(|import| {
                let name = import.split('@').next().unwrap_or(import);
                !ALWAYS_LINKED.contains(&name) && !self.requested_interfaces().any(|known| known == name)
            })
    }

    /// For whoever wants to run the plugin `reference`, not only to look at it.
    ///
    /// # Errors
    /// `plugin.undeclared-import`.
    pub fn check_imports(&self, reference: &str) -> Result<(), Failure> {
        let undeclared: Vec<&str> = self.undeclared().collect();
        if undeclared.is_empty() {
            return Ok(());
        }
        let message = format!(
            "plugin `{reference}` imports {} without a request for it in its metadata",
            undeclared.join(", ")
        );
        Err(refuse("plugin.undeclared-import", message)
            .help("its author has to declare the capability, with a reason, in the plugin's `requests`"))
    }

    /// The interfaces, without version, of the capabilities that are requested.
    pub fn requested_interfaces(&self) -> impl Iterator<Item = &'static str> {
        self.requests
            .iter()
            .flat_map(|row| row.capability.row().interfaces.iter().copied())
    }
}

/// Describes a component.
///
/// # Errors
/// `plugin.not-a-component`, `plugin.not-a-stage`, `plugin.abi`, `plugin.metadata`.
pub fn describe(component: &Component) -> Result<Descriptor, Failure> {
    let plugin = component.reference.as_str();
    let outline = outline(plugin, &component.bytes)?;
    let abi = lifecycle_abi(plugin, &outline.exports)?;
    let metadata = parse_metadata(plugin, outline.metadata(plugin)?)?;
    let declared = metadata.abi;
    if declared != abi {
        let message = format!(
            "plugin `{plugin}` says in its metadata that its ABI is {declared}, and exports that of {abi}"
        );
        return Err(refuse("plugin.metadata", message));
    }
    let has = |name: &str| {
        outline
            .exports
            .iter()
            .any(|export| export.split('@').next() == Some(name))
    };
    Ok(Descriptor {
        id: metadata.id,
        version: metadata.version,
        abi,
        digest: component.digest,
        size: component.bytes.len(),
        description: metadata.description,
        requests: metadata.requests,
        schema: metadata.schema,
        outputs: metadata.outputs,
        has_planner: has("windlass:stage/planner"),
        has_compensator: has("windlass:stage/compensator"),
        has_reconciler: has("windlass:stage/reconciler"),
        imports: outline.imports,
        exports: outline.exports,
    })
}

fn refuse(code: &str, message: String) -> Failure {
    Failure::new(Turn::Plugin, code, message)
}

/// What the parser finds at the top of the component.
#[derive(Default)]
struct Outline<'a> {
    imports: Vec<String>,
    exports: Vec<String>,
    /// Metadata sections of the component itself, and of the modules directly in it (where compilers leave them).
    of_component: Vec<&'a [u8]>,
    of_modules: Vec<&'a [u8]>,
}

fn outline<'a>(plugin: &str, bytes: &'a [u8]) -> Result<Outline<'a>, Failure> {
    let broken = |problem: &str| {
        let message = format!("plugin `{plugin}` is not a WebAssembly component: {problem}");
        refuse("plugin.not-a-component", message)
            .help("build it for wasm32-wasip2, or make a component of it with `wasm-tools component new`")
    };
    let mut outline = Outline::default();
    // What encloses the place where the parser stands: encodings, from the outside in.
    let mut inside: Vec<Encoding> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| broken(error.message()))? {
            Payload::Version { encoding, .. } => {
                if inside.is_empty() && encoding != Encoding::Component {
                    return Err(broken("it is a core module"));
                }
                inside.push(encoding);
                if inside.len() > DEEPEST {
                    return Err(broken("it is nested too deeply"));
                }
            }
            Payload::End(_) => {
                inside.pop();
            }
            Payload::ComponentImportSection(section) if inside.len() == 1 => {
                for import in section {
                    let import = import.map_err(|error| broken(error.message()))?;
                    push_name(&mut outline.imports, import.name.name).map_err(broken)?;
                }
            }
            Payload::ComponentExportSection(section) if inside.len() == 1 => {
                for export in section {
                    let export = export.map_err(|error| broken(error.message()))?;
                    push_name(&mut outline.exports, export.name.name).map_err(broken)?;
                }
            }
            Payload::CustomSection(section) if section.name() == SECTION => match inside.as_slice() {
                [_] => outline.of_component.push(section.data()),
                [_, Encoding::Module] => outline.of_modules.push(section.data()),
                _ => {}
            },
            _ => {}
        }
    }
    Ok(outline)
}

fn push_name(names: &mut Vec<String>, name: &str) -> Result<(), &'static str> {
    if names.len() >= MOST_NAMES || name.len() > LONGEST_NAME {
        return Err("it has too many imports or exports, or too long names");
    }
    names.push(name.chars().filter(|character| !character.is_control()).collect());
    Ok(())
}

impl<'a> Outline<'a> {
    /// The one metadata section.
    fn metadata(&self, plugin: &str) -> Result<&'a [u8], Failure> {
        let sections = match self.of_component.is_empty() {
            false => &self.of_component,
            true => &self.of_modules,
        };
        match sections.as_slice() {
            [section] if section.len() <= LARGEST_METADATA => Ok(section),
            [section] => Err(refuse(
                "plugin.metadata",
                format!(
                    "plugin `{plugin}` has {} bytes of metadata, over the limit of {LARGEST_METADATA}",
                    section.len()
                ),
            )),
            [] => {
                let message = format!("plugin `{plugin}` has no metadata (custom section `{SECTION}`)");
                Err(refuse("plugin.metadata", message).help(
                    "its author embeds it with the guest crate's `export!`, or adds the section by hand",
                ))
            }
            _ => Err(refuse(
                "plugin.metadata",
                format!("plugin `{plugin}` has more than one metadata section `{SECTION}`"),
            )),
        }
    }
}

fn lifecycle_abi(plugin: &str, exports: &[String]) -> Result<String, Failure> {
    let versions = exports
        .iter()
        .filter_map(|export| export.strip_prefix("windlass:stage/lifecycle@"));
    let abis: Vec<&str> = versions
        .map(|version| version.rsplit_once('.').map_or(version, |(abi, _)| abi))
        .collect();
    if abis.contains(&ABI) {
        return Ok(ABI.into());
    }
    match abis.first() {
        Some(abi) => {
            let message = format!("plugin `{plugin}` targets ABI {abi}, this Windlass offers {ABI}");
            Err(refuse("plugin.abi", message).help(format!(
                "use a build of the plugin for ABI {ABI}, or another Windlass"
            )))
        }
        None => {
            let message = format!(
                "plugin `{plugin}` is no stage: it does not export `windlass:stage/lifecycle@{ABI}.0`"
            );
            Err(refuse("plugin.not-a-stage", message)
                .help("a plugin implements the world `windlass:worlds/base`"))
        }
    }
}

struct Metadata {
    id: String,
    version: String,
    abi: String,
    description: String,
    requests: Vec<RequestRow>,
    schema: Json,
    outputs: Json,
}

const KEYS: [&str; 7] = [
    "id",
    "version",
    "abi",
    "description",
    "requests",
    "schema",
    "outputs",
];

fn parse_metadata(plugin: &str, section: &[u8]) -> Result<Metadata, Failure> {
    let mut problems = Vec::new();
    let document = serde_json::from_slice::<Json>(section);
    let parsed = match document {
        Ok(Json::Object(mut document)) => read_metadata(&mut document, &mut problems),
        Ok(_) => {
            problems.push("it has to be a JSON object".into());
            None
        }
        Err(error) => {
            problems.push(format!(
                "it is no JSON: line {}, column {}",
                error.line(),
                error.column()
            ));
            None
        }
    };
    match parsed {
        Some(metadata) if problems.is_empty() => Ok(metadata),
        _ => {
            let message = format!(
                "the metadata of plugin `{plugin}` is not valid:\n  {}",
                problems.join("\n  ")
            );
            Err(refuse("plugin.metadata", message).help("the plugin's author has to mend its `plugin.json`"))
        }
    }
}

fn read_metadata(document: &mut Map<String, Json>, problems: &mut Vec<String>) -> Option<Metadata> {
    for key in document.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let key: String = key.chars().take(80).collect();
        problems.push(format!("unknown key `{key}`: the keys are {}", KEYS.join(", ")));
    }
    let id = read_text(document, "id", problems);
    if let Some(id) = &id
        && crate::name::StageName::new(id).is_err()
    {
        problems.push("`id` takes 1 to 64 characters of a-z A-Z 0-9 _ -".into());
    }
    let version = read_text(document, "version", problems);
    let abi = read_text(document, "abi", problems);
    let description = read_text(document, "description", problems);
    let requests = read_requests(document.remove("requests"), problems);
    let schema = read_schema(document, "schema", problems);
    let outputs = read_schema(document, "outputs", problems);
    Some(Metadata {
        id: id?,
        version: version?,
        abi: abi?,
        description: description?,
        requests,
        schema,
        outputs,
    })
}

fn read_text(document: &mut Map<String, Json>, key: &str, problems: &mut Vec<String>) -> Option<String> {
    /// Descriptions are a sentence or two.
    const LONGEST: usize = 2_000;
    match document.remove(key) {
        Some(Json::String(text)) if !text.is_empty() && text.len() <= LONGEST => Some(text),
        _ => {
            problems.push(format!("`{key}` has to be a text of 1 to {LONGEST} bytes"));
            None
        }
    }
}

fn read_requests(rows: Option<Json>, problems: &mut Vec<String>) -> Vec<RequestRow> {
    let rows = match rows {
        None => return Vec::new(),
        Some(Json::Array(rows)) => rows,
        Some(_) => {
            problems.push("`requests` has to be a list".into());
            return Vec::new();
        }
    };
    let mut read = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match request::parse(row) {
            Ok(row) => read.push(row),
            Err(found) => {
                problems.extend(
                    found
                        .into_iter()
                        .map(|problem| format!("requests[{index}]: {problem}")),
                );
            }
        }
    }
    read
}

/// A schema; where there is none, one that takes nothing.
fn read_schema(document: &mut Map<String, Json>, key: &str, problems: &mut Vec<String>) -> Json {
    match document.remove(key) {
        None => serde_json::json!({ "type": "object", "additionalProperties": false }),
        Some(schema @ Json::Object(_)) => schema,
        Some(_) => {
            problems.push(format!("`{key}` has to be a JSON Schema, an object"));
            Json::Null
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METADATA: &str = r#"{ "id": "probe", "version": "0.1.0", "abi": "0.1", "description": "d",
        "requests": [{ "capability": "tcp", "from": "/a", "reason": "r" }] }"#;

    /// A component that exports an instance of the name, with a metadata section.
    fn component(export: &str, import: &str, metadata: &str) -> Vec<u8> {
        let escaped: String = metadata.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        let text = format!(
            r#"(component
                (import "{import}" (instance))
                (core module (@custom "windlass:plugin" "{escaped}"))
                (instance $stage)
                (export "{export}" (instance $stage)))"#
        );
        wat::parse_str(text).expect("valid text")
    }

    fn check(bytes: Vec<u8>, expected: Result<&str, (&str, &str)>) {
        let found = describe(&Component::new("./p.wasm", bytes));
        match (found, expected) {
            (Ok(descriptor), Ok(id)) => assert_eq!(descriptor.id, id),
            (Err(failure), Err((code, part))) => {
                assert_eq!(failure.code, code, "{failure:?}");
                assert!(
                    failure.message.contains(part) && failure.message.contains("./p.wasm"),
                    "{failure:?}"
                );
            }
            (found, _) => panic!("{found:?}"),
        }
    }

    const LIFECYCLE: &str = "windlass:stage/lifecycle@0.1.0";
    const PROBE: &str = "windlass:tcp/probe@0.1.0";

    #[test]
    fn what_components_say() {
        check(component(LIFECYCLE, PROBE, METADATA), Ok("probe"));
        check(
            component("windlass:stage/lifecycle@0.1.7", PROBE, METADATA),
            Ok("probe"),
        );
        let other = component("windlass:stage/lifecycle@0.2.0", PROBE, METADATA);
        check(
            other,
            Err(("plugin.abi", "targets ABI 0.2, this Windlass offers 0.1")),
        );
        check(
            component("windlass:stage/other@0.1.0", PROBE, METADATA),
            Err(("plugin.not-a-stage", "no stage")),
        );
        check(
            component(LIFECYCLE, PROBE, "{"),
            Err(("plugin.metadata", "line 1")),
        );
        check(
            component(LIFECYCLE, PROBE, "[]"),
            Err(("plugin.metadata", "JSON object")),
        );
        check(
            component(LIFECYCLE, PROBE, "{\"ids\":1}"),
            Err(("plugin.metadata", "unknown key `ids`")),
        );
        let other = METADATA.replace("\"abi\": \"0.1\"", "\"abi\": \"0.3\"");
        check(
            component(LIFECYCLE, PROBE, &other),
            Err(("plugin.metadata", "ABI is 0.3")),
        );
        let wrong = METADATA.replace("tcp", "udp");
        check(
            component(LIFECYCLE, PROBE, &wrong),
            Err(("plugin.metadata", "requests[0]: unknown capability")),
        );
        check(
            wat::parse_str("(module)").expect("valid"),
            Err(("plugin.not-a-component", "core module")),
        );
        check(Vec::new(), Err(("plugin.not-a-component", "")));
        check(b"#!/bin/sh\n".to_vec(), Err(("plugin.not-a-component", "")));
        let none = wat::parse_str(format!(
            "(component (instance $a) (export \"{LIFECYCLE}\" (instance $a)))"
        ));
        check(none.expect("valid"), Err(("plugin.metadata", "has no metadata")));
    }

    #[test]
    fn undeclared_imports() {
        let undeclared = |import: &str| {
            let bytes = component(LIFECYCLE, import, METADATA);
            let descriptor = describe(&Component::new("p", bytes)).expect("valid");
            let count = descriptor.undeclared().count();
            assert_eq!(descriptor.check_imports("p").is_err(), count > 0);
            count
        };
        assert_eq!(undeclared(PROBE), 0);
        assert_eq!(undeclared("windlass:stage/context@0.1.0"), 0);
        assert_eq!(undeclared("wasi:clocks/wall-clock@0.2.0"), 0);
        assert_eq!(undeclared("windlass:sql/database@0.1.0"), 1);
    }

    proptest! {
        #[test]
        fn damaged_components_never_panic(cut in 0usize..400, at in 0usize..400, byte in any::<u8>()) {
            let mut bytes = component(LIFECYCLE, PROBE, METADATA);
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            let _ = describe(&Component::new("p", bytes));
        }

        #[test]
        fn any_bytes_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
            bytes.extend(rest);
            let _ = describe(&Component::new("p", bytes));
        }
    }
}
