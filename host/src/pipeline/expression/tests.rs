//! Texts in, values out.

use super::*;
use crate::{
    name::{SecretName, StageName},
    pipeline::{
        model::{EnvValue, SecretSource, SecretSpec},
        node::{Kind, Node},
        problems::Problems,
    },
    source::SourceFile,
};
use indexmap::IndexMap;
use serde_json::{Value as Json, json};

struct World {
    vars: IndexMap<String, Json>,
    env: IndexMap<String, EnvValue>,
    secrets: IndexMap<SecretName, SecretSpec>,
    matrix: IndexMap<String, Json>,
    cells: IndexMap<String, Vec<StageName>>,
    outputs: Outputs,
}

fn stage(text: &str) -> StageName {
    StageName::new(text).expect("valid")
}

fn world() -> World {
    let map = |value: Json| value.as_object().cloned().expect("a map").into_iter().collect();
    let file = Arc::new(SourceFile::new("a.yaml", "a.yaml", ""));
    let secret = |name: &str| {
        let spec = SecretSpec {
            from: SecretSource::Env("X".into()),
            key: None,
            kdf: None,
            hosts: Vec::new(),
            span: Span::new(&file, 0..0),
        };
        (SecretName::new(name).expect("valid"), spec)
    };
    let cell = |os: &str| stage("test").cell([("os", os.to_string())]);
    World {
        vars: map(
            json!({ "version": "1.2", "count": 3, "ratio": 0.5, "on": true, "my-tag": "t", "list": [1, 2] }),
        ),
        env: [(
            "A".to_string(),
            EnvValue {
                value: "x y".into(),
                layer: "default".into(),
            },
        )]
        .into(),
        secrets: [secret("db"), secret("vault-id")].into(),
        matrix: map(json!({ "os": "debian" })),
        cells: [("test".to_string(), vec![cell("a"), cell("b")])].into(),
        outputs: [
            (stage("build"), json!({ "image": { "tag": "t1" }, "list": [1] })),
            (cell("a"), json!({ "n": 1 })),
        ]
        .into(),
    }
}

impl World {
    fn scope<'a>(&'a self, outputs: Option<&'a Outputs>) -> Scope<'a> {
        let run = RunScope {
            pipeline: "p",
            id: None,
            attempt: Some(2),
        };
        let Self {
            vars,
            env,
            secrets,
            matrix,
            cells,
            ..
        } = self;
        Scope {
            vars,
            env,
            secrets,
            matrix,
            cells,
            run,
            outputs,
        }
    }
}

fn template(text: &str) -> Result<Template, Vec<String>> {
    let file = Arc::new(SourceFile::new("a.yaml", "a.yaml", text));
    let span = Span::new(&file, 0..text.len());
    let mut problems = Problems::default();
    let made = Parsers::default().template(Node::new(Kind::Text(text.into()), span), &mut problems);
    let found = problems.into_diagnostics();
    if !found.has_errors() {
        return Ok(made);
    }
    let shown = |one: &&crate::diagnostic::Diagnostic| {
        format!("{} {}", one.span.as_ref().expect("a place"), one.message)
    };
    Err(found.sorted().iter().map(shown).collect())
}

#[track_caller]
fn value(text: &str) -> Value {
    let world = world();
    let template = template(text).expect("parses");
    template
        .evaluate(&world.scope(Some(&world.outputs)))
        .expect("has a value")
}

#[track_caller]
fn check(expression: &str, expected: Json) {
    assert_eq!(
        value(&format!("${{{{ {expression} }}}}")),
        Value::from(expected),
        "{expression}"
    );
}

#[track_caller]
fn check_secret(text: &str, expected: &str) {
    fn show(text: &SecretText) -> String {
        match text {
            SecretText::Literal(text) => format!("{text:?}"),
            SecretText::Secret { name, field } => format!(
                "<{name}{}>",
                field.iter().map(|field| format!(".{field}")).collect::<String>()
            ),
            SecretText::Concat(parts) => parts.iter().map(show).collect::<Vec<_>>().join("+"),
            SecretText::UrlEncode(inner) => format!("url({})", show(inner)),
            SecretText::Basic { user, password } => format!("basic({},{})", show(user), show(password)),
        }
    }
    let Value::Secret(secret) = value(text) else {
        panic!("{text} is no secret")
    };
    assert_eq!(show(&secret), expected);
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    let shown = match template(text) {
        Err(problems) => problems.join("\n"),
        Ok(template) => {
            let world = world();
            let problems = template
                .evaluate(&world.scope(Some(&world.outputs)))
                .expect_err(text);
            problems
                .iter()
                .map(|(span, message)| format!("{span} {message}"))
                .collect::<Vec<_>>()
                .join("\n")
        }
    };
    assert!(shown.contains(expected), "{shown}");
    for word in ["::", "Value(", "Some(", "expected struct", "serde", "Arc"] {
        assert!(!shown.contains(word), "{word} in {shown}");
    }
}

#[test]
fn values() {
    check("vars.version", json!("1.2"));
    check("vars.count + 1 == 4 && vars.on", json!(true));
    check("vars.my-tag", json!("t"));
    check("vars['my-tag'] + '-x.y-z'", json!("t-x.y-z"));
    check("vars.count - 1", json!(2));
    check(
        "vars.version != 'latest' ? [1, 2] : {'a': {'b': 1}}",
        json!([1, 2]),
    );
    check("{'a': {'b': 1}}", json!({ "a": { "b": 1 } }));
    check("vars.list.map(x, x * 2)", json!([2, 4]));
    check("vars.list.filter(x, x > 1).size()", json!(1));
    check(
        "vars.list.exists(x, x == 2) && !vars.list.all(x, x == 2)",
        json!(true),
    );
    check("vars.list.exists_one(x, x == 2)", json!(true));
    check(
        "has(vars.version) && !has(stages.build.outputs.nothing)",
        json!(true),
    );
    check("2 in vars.list || 'a' in {'b': 1}", json!(true));
    check("env.A.split(' ')", json!(["x", "y"]));
    check("urlencode(env.A)", json!("x%20y"));
    check("basic('a', 'b')", json!("YTpi"));
    check("stages.build.outputs.image.tag.startsWith('t')", json!(true));
    check("stages.build.outputs.list[0]", json!(1));
    check("stages.test.outputs['test[os=a]'].n", json!(1));
    check("run.pipeline + string(run.attempt)", json!("p2"));
    check("'v1.2'.matches('^v[0-9]')", json!(true));
    check("int('7') / 2", json!(3));
    check("false && vars.list[9] == 1", json!(false));
    check("vars.list[9] == 1 || true", json!(true));
    check("-vars.ratio", json!(-0.5));
    check("matrix.os", json!("debian"));
    assert_eq!(
        value("a ${{ vars.count }}/${{ vars.on }}"),
        Value::String("a 3/true".into())
    );
    assert_eq!(
        value("$${{ vars.count }}"),
        Value::String("${{ vars.count }}".into())
    );
    assert_eq!(value("${{ '}}' }}"), Value::String("}}".into()));
}

#[test]
fn secrets_stay_handles() {
    check_secret("${{ secrets.db }}", "<db>");
    check_secret("${{ secrets.vault-id }}", "<vault-id>");
    check_secret("${{ secrets.db.password }}", "<db.password>");
    check_secret(
        "postgres://u:${{ urlencode(secrets.db.password) }}@h",
        r#""postgres://u:"+url(<db.password>)+"@h""#,
    );
    check_secret("${{ 'a' + secrets.db + 'b' + 'c' }}", r#""a"+<db>+"bc""#);
    check_secret(
        "Basic ${{ basic(vars.version, secrets.db) }}",
        r#""Basic "+basic("1.2",<db>)"#,
    );
    check_secret("${{ vars.on ? secrets.db : secrets.vault-id }}", "<db>");
    let list = value("${{ [secrets.db] }}");
    assert!(matches!(list, Value::List(items) if matches!(items[0], Value::Secret(_))));
    for looks_inside in [
        "secrets.db == 'x'",
        "'x' == secrets.db",
        "secrets.db.size()",
        "secrets.db.startsWith('a')",
        "secrets.db in ['a']",
        "[secrets.db] == ['a']",
        "['a', secrets.db].join(',')",
        "secrets.db.lowerAscii()",
        "secrets.db < 'b'",
        "int(secrets.db)",
        "secrets.db.matches('a')",
    ] {
        check_error(&format!("${{{{ {looks_inside} }}}}"), "would look into a secret");
    }
    check_error("${{ secrets.db ? 1 : 2 }}", "must be true or false, not a secret");
    check_error("${{ {secrets.db: 1} }}", "a key must be text, not a secret");
    check_error("${{ vars.list[secrets.db] }}", "cannot be indexed by a secret");
    check_error(
        "${{ secrets.db + 1 }}",
        "`+` does not take a secret and a whole number",
    );
}

#[test]
fn what_has_not_run_is_unknown() {
    let check = |text: &str, outputs: bool, expected: Value| {
        let world = world();
        let outputs = outputs.then_some(&world.outputs);
        assert_eq!(
            template(text).expect("parses").evaluate(&world.scope(outputs)),
            Ok(expected),
            "{text}"
        );
    };
    check("${{ stages.build.outputs.x.y }}", false, Value::Unknown);
    check("a${{ stages.build.outputs.x }}", false, Value::Unknown);
    check(
        "${{ secrets.db + stages.build.outputs.x }}",
        false,
        Value::Unknown,
    );
    check(
        "${{ stages.build.outputs.n == 1 && vars.count == 4 }}",
        false,
        Value::Bool(false),
    );
    check(
        "${{ vars.on ? 1 : stages.build.outputs.n }}",
        false,
        Value::Number(1.into()),
    );
    check("${{ has(stages.build.outputs.n) }}", false, Value::Unknown);
    check("${{ stages.test.outputs['test[os=b]'].n }}", true, Value::Unknown);
    check("${{ stages.test.outputs }}", true, Value::Unknown);
    check("${{ run.id }}", true, Value::Unknown);
    check(
        "${{ [stages.build.outputs.n] }}",
        false,
        Value::List(vec![Value::Unknown]),
    );
}

#[test]
fn mistakes_have_places_and_words() {
    check_error(
        "x ${{ secrets.dbb }}",
        "a.yaml:1:7 unknown secret `dbb`; did you mean `db`?",
    );
    check_error(
        "${{ 1 + var.x }}",
        "a.yaml:1:9 unknown name `var`; did you mean `vars`?",
    );
    check_error(
        "${{ vars.my-tag + sise('') }}",
        "unknown function `sise`; did you mean `size`?",
    );
    check_error(
        "${{ vars.version + 1 }}",
        "`+` does not take text and a whole number; string() makes text of a number",
    );
    check_error("${{ 1 + 0.5 }}", "int() and double() convert");
    check_error("${{ 1 / 0 }}", "divided by zero");
    check_error("${{ 9223372036854775807 + 1 }}", "too large");
    check_error(
        "${{ stages.build.outputs.imag }}",
        "a.yaml:1:5 the output of stage `build` has no `imag`; did you mean `image`?",
    );
    check_error("${{ stages.build.output }}", "`stages.build.outputs`");
    check_error("${{ 'é' + secrets.dbb }}", "a.yaml:1:11 unknown secret");
    check_error("${{ 'é' b }}", "a.yaml:1:9 this is not an expression");
    check_error("a ${{ vars.list }}", "a list cannot stand within text");
    check_error("${{ vars.x", "has no `}}`");
    check_error("${{ }}", "the expression is empty");
    check_error("${{ 1 + }}", "the expression ends too early");
    check_error("${{ a b }}", "a.yaml:1:7 this is not an expression");
    check_error("${{ matrix.arch }}", "unknown matrix key `arch`");
    check_error("${{ run.idd }}", "did you mean `id`?");
    check_error("${{ size('a', 'b') }}", "`size` takes 1 values, not 2");
    check_error("${{ b'x' }}", "no bytes");
    check_error("${{ vars.list.map(x, vars.list.map(y, z)) }}", "unknown name `z`");
}

#[test]
fn cost_is_bounded() {
    check_error(&format!("${{{{ {} }}}}", "1+".repeat(2_000)), "longer than");
    check_error(
        &format!("${{{{ {}1{} }}}}", "(".repeat(200), ")".repeat(200)),
        "nested deeper",
    );
    check_error(&format!("${{{{ {}true }}}}", "!".repeat(500)), "nested deeper");
    check_error(
        &format!("${{{{ {} }}}}", vec!["1"; 200].join("+")),
        "more than 128 operators",
    );
    let list = format!("[{}]", vec!["1"; 100].join(","));
    let deep = format!(
        "${{{{ {}1{}{} }}}}",
        "(-".repeat(24),
        ")".repeat(24),
        "+1".repeat(100)
    );
    assert!(
        matches!(value(&deep), Value::Number(_)),
        "the deepest expression fits the stack of a test's thread"
    );
    let nested = format!("{list}.map(a, {list}.map(b, {list}.map(c, {list}.map(d, 1))))");
    check_error(&format!("${{{{ {nested} }}}}"), "too many steps");
    let long = format!("${{{{ {} }}}}", vec!["1"; 125].join("+"));
    assert_eq!(
        value(&long),
        Value::Number(125.into()),
        "a flat sum is no deep one"
    );
}

#[test]
fn places_of_parts() {
    let text = "a: [x, {b: 1}]";
    let file = Arc::new(SourceFile::new("a.yaml", "a.yaml", text));
    let mut problems = Problems::default();
    let node =
        crate::pipeline::yaml::parse(&file, &crate::pipeline::yaml::PIPELINE, &mut problems).expect("valid");
    let template = Parsers::default().template(node, &mut problems);
    let pointer = |parts: &[&str]| parts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let at = |span: Option<Span>| span.map(|span| span.text().to_string());
    assert_eq!(at(template.span_at(&pointer(&["a", "1", "b"]))), Some("1".into()));
    assert_eq!(
        at(template.key_span_at(&pointer(&["a", "1", "b"]))),
        Some("b".into())
    );
    assert_eq!(at(template.span_at(&pointer(&["a", "9"]))), None);
}
