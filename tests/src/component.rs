//! Components to run: built from `guests/`, or made from text.

use serde_json::Value as Json;
use windlass::catalog::Component;

include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// A guest of `tests/guests/`.
///
/// # Panics
/// There is none of this name.
pub fn guest(name: &str) -> Component {
    let (_, bytes) = GUESTS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a directory of tests/guests");
    Component::new(name, *bytes)
}

/// A component around one core module in text form, which imports nothing. The module exports `memory` and `run`, which
/// returns the address of a `result<outcome, error>`: zeroed memory is "unchanged, no outputs".
pub fn module(name: &str, body: &str) -> Component {
    component(name, "", body, "windlass:stage/lifecycle@0.1.0")
}

/// The same with imports of the component, and under another export.
///
/// # Panics
/// The text is not valid.
pub fn component(name: &str, imports: &str, body: &str, export: &str) -> Component {
    let text = format!(
        r#"(component
            {imports}
            (core module $module {body})
            (core instance $core (instantiate $module))
            (type $outcome-type (record
                (field "changed" bool) (field "summary" string)
                (field "outputs" (list (tuple string string))) (field "details" (option string))))
            (export $outcome "outcome" (type $outcome-type))
            (type $error-type (record
                (field "code" string) (field "message" string)
                (field "retryable" bool) (field "details" (option string))))
            (export $error "error" (type $error-type))
            (type $run (func (result (result $outcome (error $error)))))
            (func $run (type $run) (canon lift (core func $core "run") (memory (core memory $core "memory"))))
            (instance $stage (export "run" (func $run)))
            (export "{export}" (instance $stage)))"#
    );
    Component::new(name, wat::parse_str(text).expect("valid text"))
}

/// The component's bytes with this metadata. A section of the component itself goes before those of the modules in it.
///
/// # Panics
/// Never: the parts are short.
pub fn with_metadata(component: &Component, metadata: &Json) -> Vec<u8> {
    let name = b"windlass:plugin";
    let mut section = vec![u8::try_from(name.len()).expect("short")];
    section.extend(name);
    section.extend(metadata.to_string().bytes());
    let mut bytes = component.bytes.to_vec();
    bytes.push(0);
    let mut size = section.len();
    while size >= 0x80 {
        bytes.push(u8::try_from(size & 0x7f).expect("seven bits") | 0x80);
        size >>= 7;
    }
    bytes.push(u8::try_from(size).expect("seven bits"));
    bytes.extend(section);
    bytes
}
