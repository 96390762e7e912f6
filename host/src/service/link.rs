//! Which imports a component gets: the real service, a stub that denies, or none at all.
//!
//! A grant changes what is linked; it is never looked up while the guest runs. WASI is the exception: always linked, inert.

use super::State;
use crate::{
    capability::{ABI, ALWAYS_LINKED, TABLE},
    failure::{Failure, Turn},
    wit::{self, Abort},
};
use std::collections::BTreeMap;
use wasmtime::{
    Engine,
    component::{
        Component, Linker, LinkerInstance, ResourceType, Val,
        types::{ComponentFunc, ComponentInstance, ComponentItem, Type},
    },
};

/// How an interface is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Needed and granted.
    Real,
    /// Requested, and not needed by this stage: every function answers `grant.denied`.
    Stub,
}

/// How each `windlass:` interface, by its name without version, is linked. What is not in it is undeclared.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interfaces(BTreeMap<String, Kind>);

impl Interfaces {
    /// Adds an interface, `windlass:secrets/store`. `Real` wins over `Stub`.
    pub fn add(&mut self, name: impl Into<String>, kind: Kind) {
        let known = self.0.entry(name.into()).or_insert(kind);
        *known = (*known).min(kind);
    }

    pub fn kind(&self, name: &str) -> Option<Kind> {
        if ALWAYS_LINKED.contains(&name) {
            return Some(Kind::Real);
        }
        self.0.get(name).copied()
    }
}

type Link = fn(&mut Linker<State>) -> wasmtime::Result<()>;

/// Every service, by the interface it implements.
const SERVICES: &[(&str, Link)] = &[
    ("windlass:stage/types", |_| Ok(())),
    ("windlass:stage/context", super::context::link),
    ("windlass:stage/events", super::events::link),
    ("windlass:artifacts/store", super::artifact::link),
    ("windlass:flow/streams", super::flow::link),
    ("windlass:objects/store", super::objects::link),
    ("windlass:secrets/store", super::secret::link_store),
    ("windlass:secrets/reveal", super::secret::link_reveal),
    ("windlass:secrets/sink", super::secret::link_sink),
    ("windlass:tcp/probe", super::tcp::link),
    ("windlass:sql/database", super::sql::link),
    ("windlass:process/runner", super::process::link),
    ("windlass:containers/images", super::containers::images::link),
    ("windlass:containers/compose", super::containers::compose::link),
    ("windlass:containers/engine", super::containers::engine::link),
    ("windlass:containers/exec", super::containers::exec::link),
];

/// The resources of the interfaces: the real type also in the stub, because one interface hands another's handles on.
fn resource(interface: &str, name: &str) -> Option<ResourceType> {
    use wit::windlass::{
        artifacts::store as artifacts, flow::streams, secrets::store as secrets, sql::database,
    };
    Some(match (interface, name) {
        ("windlass:secrets/store" | "windlass:secrets/reveal" | "windlass:secrets/sink", "secret") => {
            ResourceType::host::<secrets::Secret>()
        }
        ("windlass:artifacts/store", "writer") => ResourceType::host::<artifacts::Writer>(),
        ("windlass:artifacts/store", "reader") => ResourceType::host::<artifacts::Reader>(),
        ("windlass:flow/streams", "source") => ResourceType::host::<streams::Source>(),
        ("windlass:flow/streams", "sink") => ResourceType::host::<streams::Sink>(),
        ("windlass:sql/database", "connection") => ResourceType::host::<database::Connection>(),
        _ => return None,
    })
}

/// A linker with WASI, to be cloned for each component.
pub(crate) fn base(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    super::wasi::link(&mut linker)?;
    Ok(linker)
}

/// Links what `component` imports of ours.
///
/// # Errors
/// `plugin.abi`, `plugin.undeclared-import`; `internal.link` is a bug here.
pub(crate) fn link(
    linker: &mut Linker<State>,
    component: &Component,
    plugin: &str,
    interfaces: &Interfaces,
) -> Result<(), Failure> {
    let engine = linker.engine().clone();
    let imported = component.component_type();
    for (import, item) in imported.imports(&engine) {
        if !import.starts_with("windlass:") {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            return Err(undeclared(plugin, import));
        };
        let name = checked_name(plugin, import)?;
        let linked = match interfaces.kind(name) {
            None => return Err(undeclared(plugin, import)),
            Some(Kind::Stub) => link_stub(linker, &engine, import, name, &instance),
            Some(Kind::Real) => link_real(linker, name),
        };
        linked.map_err(|error| {
            let message = format!("`{import}` cannot be linked: {error:#}");
            Failure::new(Turn::Windlass, "internal.link", message)
        })?;
    }
    Ok(())
}

/// The interface's name without its version, which must be of our ABI.
///
/// # Errors
/// `plugin.abi`.
pub fn checked_name<'a>(plugin: &str, import: &'a str) -> Result<&'a str, Failure> {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let abi = version.rsplit_once('.').map_or(version, |(abi, _)| abi);
    if abi == ABI {
        return Ok(name);
    }
    let abi = if abi.is_empty() { "without a version" } else { abi };
    let message =
        format!("plugin `{plugin}` targets ABI {abi}, this Windlass offers {ABI} (import `{import}`)");
    Err(Failure::new(Turn::Plugin, "plugin.abi", message).help(format!(
        "use a build of the plugin for ABI {ABI}, or another Windlass"
    )))
}

fn undeclared(plugin: &str, import: &str) -> Failure {
    let message = format!("plugin `{plugin}` imports `{import}` without a request for it in its metadata");
    Failure::new(Turn::Plugin, "plugin.undeclared-import", message)
        .help("its author has to declare the capability, with a reason, in the plugin's `requests`")
}

fn link_real(linker: &mut Linker<State>, name: &str) -> wasmtime::Result<()> {
    let service = SERVICES.iter().find(|(interface, _)| *interface == name);
    match service {
        Some((_, link)) => link(linker),
        None => wasmtime::bail!("there is no service of this name"),
    }
}

/// An instance of the same type whose functions deny.
fn link_stub(
    linker: &mut Linker<State>,
    engine: &Engine,
    import: &str,
    name: &str,
    instance: &ComponentInstance,
) -> wasmtime::Result<()> {
    let mut stub = linker.instance(import)?;
    for (export, item) in instance.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => link_denial(&mut stub, name, export)?,
            ComponentItem::Resource(_) => {
                let Some(resource) = resource(name, export) else {
                    wasmtime::bail!("the resource `{export}` is unknown");
                };
                stub.resource(export, resource, |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn link_denial(
    stub: &mut LinkerInstance<'_, State>,
    interface: &str,
    function: &str,
) -> wasmtime::Result<()> {
    let called = format!("{interface}.{function}");
    // Of several capabilities that share an interface the stub cannot tell which the call is about: the first stands for it.
    let capability = TABLE
        .iter()
        .find(|row| row.interfaces.contains(&interface))
        .map(|row| row.capability);
    stub.func_new_async(function, move |store, function, _, results| {
        if let Some(capability) = capability {
            store.data().granter.deny(capability, &called);
        }
        let denial = denied(store.data(), &called);
        Box::new(async move { answer(&function, denial, results) })
    })
}

fn denied(state: &State, called: &str) -> Failure {
    let stage = &state.context.stage;
    let message = format!(
        "stage `{stage}` has no grant for `{called}`: its `with:` needed none when the run was planned"
    );
    Failure::new(Turn::PipelineAuthor, "grant.denied", message)
        .help("`windlass plugin inspect` shows which configuration needs which capability")
}

/// Returns the failure as the function's error, or ends the guest where the function has none.
fn answer(function: &ComponentFunc, denial: Failure, results: &mut [Val]) -> wasmtime::Result<()> {
    let has_error = match function.results().next() {
        Some(Type::Result(result)) => matches!(result.err(), Some(Type::Record(_))),
        _ => false,
    };
    let (true, [result]) = (has_error, results) else {
        return Err(wasmtime::Error::new(Abort(denial)));
    };
    let error = wit::GuestError::from(denial);
    let details = error.details.map(|details| Box::new(Val::String(details)));
    let fields = vec![
        ("code".to_string(), Val::String(error.code)),
        ("message".to_string(), Val::String(error.message)),
        ("retryable".to_string(), Val::Bool(error.retryable)),
        ("details".to_string(), Val::Option(details)),
    ];
    *result = Val::Result(Err(Some(Box::new(Val::Record(fields)))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |import: &str, expected: Result<&str, &str>| {
            let found = checked_name("p", import);
            assert_eq!(
                found.as_deref().map_err(|failure| failure.code.as_str()),
                expected
            );
        };
        check("windlass:sql/database@0.1.0", Ok("windlass:sql/database"));
        check("windlass:sql/database@0.1.7", Ok("windlass:sql/database"));
        check("windlass:sql/database@0.2.0", Err("plugin.abi"));
        check("windlass:sql/database@1.1.0", Err("plugin.abi"));
        check("windlass:sql/database", Err("plugin.abi"));
        let failure = checked_name("p", "windlass:stage/context@0.2.0").expect_err("another ABI");
        assert!(
            failure
                .message
                .starts_with("plugin `p` targets ABI 0.2, this Windlass offers 0.1")
        );
    }

    #[test]
    fn real_wins_over_stub_and_the_rest_is_undeclared() {
        let mut interfaces = Interfaces::default();
        interfaces.add("a", Kind::Real);
        interfaces.add("a", Kind::Stub);
        interfaces.add("b", Kind::Stub);
        assert_eq!(interfaces.kind("a"), Some(Kind::Real));
        assert_eq!(interfaces.kind("b"), Some(Kind::Stub));
        assert_eq!(interfaces.kind("c"), None);
        assert_eq!(interfaces.kind("windlass:stage/events"), Some(Kind::Real));
    }

    #[test]
    fn every_capability_has_its_services() {
        for interface in TABLE.iter().flat_map(|row| row.interfaces) {
            let known = SERVICES.iter().any(|(name, _)| name == interface);
            assert!(
                known || interface.starts_with("wasi:"),
                "{interface} has no service"
            );
        }
    }
}
