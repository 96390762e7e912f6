//! Every key of the pipeline file, once: the reader accepts these and nothing else, the JSON Schema is made from them.

/// One key of a map.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    /// JSON Schema of the value, without the description.
    pub(crate) schema: &'static str,
    pub(crate) description: &'static str,
}

const fn optional(name: &'static str, schema: &'static str, description: &'static str) -> Key {
    Key {
        name,
        required: false,
        schema,
        description,
    }
}

const fn required(name: &'static str, schema: &'static str, description: &'static str) -> Key {
    Key {
        name,
        required: true,
        schema,
        description,
    }
}

const TEXT: &str = r#"{"type":"string"}"#;
const TEXTS: &str = r#"{"type":"array","items":{"type":"string"}}"#;
const BOOLEAN: &str = r#"{"type":"boolean"}"#;
const DURATION: &str = r##"{"$ref":"#/$defs/duration"}"##;
const SCALAR: &str = r#"{"type":["string","number","boolean"]}"#;
const RETRY: &str = r##"{"$ref":"#/$defs/retry"}"##;

pub(crate) static TOP: &[Key] = &[
    required("windlass", r#"{"const":1}"#, "Version of this format."),
    required(
        "name",
        r##"{"$ref":"#/$defs/name"}"##,
        "The pipeline's name. Its state is kept under it.",
    ),
    optional("description", TEXT, "What the pipeline is for."),
    optional(
        "vars",
        r##"{"type":"object","additionalProperties":{"anyOf":[{"type":["string","number","boolean"]},{"$ref":"#/$defs/var"}]}}"##,
        "Variables for ${{ vars.NAME }}: a value, or a declaration. Set with --var NAME=VALUE and --var-file.",
    ),
    optional(
        "env",
        r##"{"type":"object","additionalProperties":{"anyOf":[{"type":["string","number","boolean"]},{"$ref":"#/$defs/env"}]}}"##,
        "Values for ${{ env.NAME }}. Later layers win: default, env-files, the process (where allowed), --env-file.",
    ),
    optional(
        "env-files",
        TEXTS,
        "Files of NAME=value lines, relative to the project's root: a layer of env.",
    ),
    optional(
        "secrets",
        r##"{"type":"object","additionalProperties":{"anyOf":[{"type":"string"},{"$ref":"#/$defs/secret"}]}}"##,
        "Secrets for ${{ secrets.NAME }}: where each comes from. Stages get handles, never text.",
    ),
    optional(
        "concurrency",
        r##"{"$ref":"#/$defs/concurrency"}"##,
        "Runs of one group wait for each other.",
    ),
    optional(
        "directories",
        r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
        "Directories of this machine that stages may be granted as /mnt/NAME.",
    ),
    optional(
        "origins",
        r##"{"type":"object","additionalProperties":{"$ref":"#/$defs/origin"}}"##,
        "Where to connect instead, and which authority to trust, for an origin such as https://host.",
    ),
    optional(
        "defaults",
        r##"{"$ref":"#/$defs/defaults"}"##,
        "What stages use that do not say otherwise.",
    ),
    required(
        "stages",
        r##"{"type":"object","minProperties":1,"additionalProperties":{"$ref":"#/$defs/stage"}}"##,
        "The stages. Those with no path of needs between them run in parallel.",
    ),
    optional(
        "finally",
        r##"{"type":"object","additionalProperties":{"$ref":"#/$defs/stage"}}"##,
        "Stages that run after everything else, however it ended.",
    ),
];

pub(crate) static STAGE: &[Key] = &[
    optional("description", TEXT, "What the stage is for."),
    required(
        "uses",
        TEXT,
        "The plugin: a built-in one's name, ./file.wasm, or oci://registry/repository:tag.",
    ),
    optional(
        "with",
        r#"{"type":["object","null"]}"#,
        "The plugin's configuration; `windlass plugin inspect` shows its keys.",
    ),
    optional(
        "allow",
        r##"{"$ref":"#/$defs/allow"}"##,
        "What the stage may touch. What is not listed is not given.",
    ),
    optional(
        "needs",
        r#"{"type":["array","null"],"items":{"type":"string"}}"#,
        "Stages that must have ended well before. Using another stage's outputs or secrets implies it.",
    ),
    optional(
        "if",
        r#"{"type":["string","boolean"]}"#,
        "A condition, ${{ ... }}: the stage is skipped where it is false.",
    ),
    optional(
        "matrix",
        r##"{"$ref":"#/$defs/matrix"}"##,
        "Runs the stage once for every combination of values.",
    ),
    optional("retry", RETRY, "What happens after a failed attempt."),
    optional("timeout", DURATION, "How long one attempt may take."),
    optional(
        "rollback",
        r#"{"enum":["auto","manual","never"]}"#,
        "How the stage is undone: by the plugin where it can, by a person, or not at all.",
    ),
    optional(
        "point-of-no-return",
        BOOLEAN,
        "Once this stage has succeeded, a failed run is finished forward: it and what came before are not undone.",
    ),
    optional(
        "approval",
        r##"{"$ref":"#/$defs/approval"}"##,
        "The stage waits for a person: the run pauses before it (exit 4).",
    ),
];

pub(crate) static APPROVAL: &[Key] = &[
    required("ask", TEXT, "The question that the person answers."),
    optional(
        "timeout",
        DURATION,
        "How long an answer may take; after it the default counts. Without it the stage waits for ever.",
    ),
    optional(
        "default",
        r#"{"enum":["approve","reject"]}"#,
        "What counts when nobody has answered in time. Default: reject.",
    ),
];

pub(crate) static VAR: &[Key] = &[
    optional(
        "type",
        r#"{"enum":["string","number","boolean"]}"#,
        "The type; --var is read as this. Default: string.",
    ),
    optional("required", BOOLEAN, "The run must be given a value."),
    optional("default", SCALAR, "The value without --var."),
    optional("description", TEXT, "What it is for."),
    optional(
        "enum",
        r#"{"type":"array","minItems":1,"items":{"type":["string","number","boolean"]}}"#,
        "The values it may have.",
    ),
];

pub(crate) static ENV: &[Key] = &[
    optional("default", SCALAR, "The value where no layer has one."),
    optional(
        "process",
        BOOLEAN,
        "Whether the process's environment is a layer.",
    ),
];

pub(crate) static SECRET: &[Key] = &[
    required(
        "from",
        TEXT,
        "env://NAME, file://path, file://path#KEY, docker-secret://name, aws-sm://name, aws-sm://name#key, or stage://stage/name.",
    ),
    optional(
        "key",
        TEXT,
        "Where the passphrase of an encrypted file comes from: env://NAME, file://path or docker-secret://name.",
    ),
    optional(
        "kdf",
        r#"{"enum":["evp-sha256","evp-md5","pbkdf2"]}"#,
        "How `openssl enc` made the key; the file's header cannot tell.",
    ),
    optional("hosts", TEXTS, "The only hosts that its value may be sent to."),
];

pub(crate) static RETRY_KEYS: &[Key] = &[
    optional(
        "attempts",
        r#"{"type":"integer","minimum":1,"maximum":100}"#,
        "How often it is tried, the first included.",
    ),
    optional(
        "backoff",
        DURATION,
        "The wait before the second attempt; it doubles each time.",
    ),
    optional("max-backoff", DURATION, "The longest wait."),
    optional(
        "on",
        TEXTS,
        "Codes of failures that are tried again, by their first parts: upstream, upstream.timeout.",
    ),
];

pub(crate) static DEFAULTS: &[Key] = &[
    optional("timeout", DURATION, "How long one attempt may take."),
    optional("retry", RETRY, "What happens after a failed attempt."),
];

pub(crate) static CONCURRENCY: &[Key] = &[required("group", TEXT, "The group's name.")];

pub(crate) static ORIGIN: &[Key] = &[
    optional("connect", TEXT, "host:port to connect to instead."),
    optional(
        "ca",
        TEXT,
        "A PEM file of authorities to trust besides the system's, relative to the root.",
    ),
];

/// The keys of `matrix` beside its axes.
pub(crate) static MATRIX: &[Key] = &[
    optional(
        "include",
        r#"{"type":"array","items":{"type":"object"}}"#,
        "Cells to add.",
    ),
    optional(
        "exclude",
        r#"{"type":"array","items":{"type":"object"}}"#,
        "Cells to leave out: those that have these values.",
    ),
];
