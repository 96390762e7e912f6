//! Every key of the Compose specification, once: what is not in these tables is an error.
//!
//! Written after the specification's text and its public schema (github.com/compose-spec/compose-spec,
//! `schema/compose-spec.json`), which is a list of facts and not a part of this repository.

use super::{
    shape::{
        Bare, Key, Merge, Object,
        Shape::{self, *},
        key, required,
    },
    short, special,
};

const TEXTS: Shape = List(&Text, Merge::Set);
const APPENDED: Shape = List(&Text, Merge::Append);
const ONE_OR_TEXTS: Shape = OneOrList(&Text, Merge::Set);
const LABELS: Shape = Pairs(Bare::Empty);
const VARIABLES: Shape = Pairs(Bare::Inherited);
const OPTIONS: Shape = Map(&Scalar);
const COMMAND: Shape = Special(special::command);

pub(crate) static TOP: Object = Object::new(
    "a compose file",
    &[
        key("version", Scalar),
        key("name", Text),
        key("include", List(&Object(&INCLUDE), Merge::Append)),
        key("services", Map(&Object(&SERVICE))),
        key("networks", Map(&Object(&NETWORK))),
        key("volumes", Map(&Object(&VOLUME))),
        key("secrets", Map(&Object(&SECRET))),
        key("configs", Map(&Object(&CONFIG))),
        key("models", Map(&Object(&MODEL))),
    ],
);

pub(crate) static INCLUDE: Object = Object::new(
    "`include`",
    &[
        required("path", OneOrList(&Path, Merge::Append)),
        key("env_file", OneOrList(&Path, Merge::Append)),
        key("project_directory", Path),
    ],
)
.short(short::include);

pub(crate) static SERVICE: Object = Object::new(
    "a service",
    &[
        key("annotations", LABELS),
        key("attach", Bool),
        key("build", Object(&BUILD)),
        key("blkio_config", Object(&BLOCK_IO)),
        key("cap_add", TEXTS),
        key("cap_drop", TEXTS),
        key("cgroup", Word(&["host", "private"])),
        key("cgroup_parent", Text),
        key("command", COMMAND),
        key("configs", List(&Object(&FILE_GRANT), Merge::By(&["target"]))),
        key("container_name", Text),
        key("cpu_count", Integer),
        key("cpu_percent", Number),
        key("cpu_period", Scalar),
        key("cpu_quota", Scalar),
        key("cpu_rt_period", Scalar),
        key("cpu_rt_runtime", Scalar),
        key("cpu_shares", Integer),
        key("cpus", Number),
        key("cpuset", Text),
        key("credential_spec", Object(&CREDENTIAL)),
        key(
            "depends_on",
            Named(&Object(&DEPENDENCY), &[("condition", "service_started")]),
        ),
        key("deploy", Object(&DEPLOY)),
        key("develop", Object(&DEVELOP)),
        key("device_cgroup_rules", TEXTS),
        key("devices", List(&Object(&DEVICE), Merge::By(&["target"]))),
        key("dns", ONE_OR_TEXTS),
        key("dns_opt", TEXTS),
        key("dns_search", ONE_OR_TEXTS),
        key("domainname", Text),
        key("entrypoint", COMMAND),
        key("env_file", OneOrList(&Object(&ENV_FILE), Merge::By(&["path"]))),
        key("environment", VARIABLES),
        key("expose", List(&Scalar, Merge::Set)),
        key("extends", Object(&EXTENDS)),
        key("external_links", TEXTS),
        key("extra_hosts", Special(special::hosts)),
        key("gpus", Special(special::gpus)),
        key("group_add", List(&Scalar, Merge::Set)),
        key("healthcheck", Object(&HEALTHCHECK)),
        key("hostname", Text),
        key("image", Text),
        key("init", Bool),
        key("ipc", Text),
        key("isolation", Text),
        key("label_file", OneOrList(&Path, Merge::Set)),
        key("labels", LABELS),
        key("links", TEXTS),
        key("logging", Object(&LOGGING)),
        key("mac_address", Text),
        key("mem_limit", Size),
        key("mem_reservation", Size),
        key("mem_swappiness", Integer),
        key("memswap_limit", Size),
        key("models", Named(&Object(&MODEL_USE), &[])),
        key("network_mode", Text),
        key("networks", Named(&Object(&ATTACHMENT), &[])),
        key("oom_kill_disable", Bool),
        key("oom_score_adj", Integer),
        key("pid", Text),
        key("pids_limit", Integer),
        key("platform", Text),
        key(
            "ports",
            List(
                &Object(&PORT),
                Merge::By(&["host_ip", "target", "published", "protocol"]),
            ),
        ),
        key("post_start", List(&Object(&HOOK), Merge::Append)),
        key("pre_start", List(&Object(&INIT), Merge::Append)),
        key("pre_stop", List(&Object(&HOOK), Merge::Append)),
        key("privileged", Bool),
        key("profiles", TEXTS),
        key("provider", Object(&PROVIDER)),
        key("pull_policy", Text),
        key("pull_refresh_after", Text),
        key("read_only", Bool),
        key("restart", Text),
        key("runtime", Text),
        key("scale", Integer),
        key("secrets", List(&Object(&FILE_GRANT), Merge::By(&["target"]))),
        key("security_opt", TEXTS),
        key("shm_size", Size),
        key("stdin_open", Bool),
        key("stop_grace_period", Duration),
        key("stop_signal", Text),
        key("storage_opt", OPTIONS),
        key("sysctls", LABELS),
        key("tmpfs", ONE_OR_TEXTS),
        key("tty", Bool),
        key("ulimits", ULIMITS),
        key("use_api_socket", Bool),
        key("user", Text),
        key("userns_mode", Text),
        key("uts", Text),
        key("volumes", List(&Object(&MOUNT), Merge::By(&["target"]))),
        key("volumes_from", TEXTS),
        key("working_dir", Text),
    ],
);

pub(crate) static BUILD: Object = Object::new(
    "`build`",
    &[
        key("additional_contexts", Special(special::contexts)),
        key("args", VARIABLES),
        key("cache_from", APPENDED),
        key("cache_to", APPENDED),
        key("context", Context),
        key("dockerfile", Text),
        key("dockerfile_inline", Text),
        key("entitlements", TEXTS),
        key("extra_hosts", Special(special::hosts)),
        key("isolation", Text),
        key("labels", LABELS),
        key("network", Text),
        key("no_cache", Bool),
        key("no_cache_filter", ONE_OR_TEXTS),
        key("platforms", TEXTS),
        key("privileged", Bool),
        key("provenance", Scalar),
        key("pull", Bool),
        key("sbom", Scalar),
        key("secrets", List(&Object(&FILE_GRANT), Merge::By(&["target"]))),
        key("shm_size", Size),
        key("ssh", VARIABLES),
        key("tags", TEXTS),
        key("target", Text),
        key("ulimits", ULIMITS),
    ],
)
.short(short::build);

const ULIMITS: Shape = Map(&Special(special::ulimit));

static BLOCK_IO: Object = Object::new(
    "`blkio_config`",
    &[
        key("device_read_bps", DEVICE_RATES),
        key("device_read_iops", DEVICE_RATES),
        key("device_write_bps", DEVICE_RATES),
        key("device_write_iops", DEVICE_RATES),
        key("weight", Integer),
        key(
            "weight_device",
            List(&Object(&DEVICE_WEIGHT), Merge::By(&["path"])),
        ),
    ],
);
const DEVICE_RATES: Shape = List(&Object(&DEVICE_RATE), Merge::By(&["path"]));
static DEVICE_RATE: Object = Object::new("the rate of a device", &[key("path", Text), key("rate", Size)]);
static DEVICE_WEIGHT: Object = Object::new(
    "the weight of a device",
    &[key("path", Text), key("weight", Integer)],
);

static CREDENTIAL: Object = Object::new(
    "`credential_spec`",
    &[key("config", Text), key("file", Text), key("registry", Text)],
);

static DEPENDENCY: Object = Object::new(
    "a dependency",
    &[
        required(
            "condition",
            Word(&[
                "service_started",
                "service_healthy",
                "service_completed_successfully",
            ]),
        ),
        key("required", Bool),
        key("restart", Bool),
    ],
);

static DEPLOY: Object = Object::new(
    "`deploy`",
    &[
        key("endpoint_mode", Text),
        key("labels", LABELS),
        key("mode", Text),
        key("placement", Object(&PLACEMENT)),
        key("replicas", Integer),
        key("resources", Object(&RESOURCES)),
        key("restart_policy", Object(&RESTART_POLICY)),
        key("rollback_config", Object(&UPDATE)),
        key("update_config", Object(&UPDATE)),
    ],
);

static PLACEMENT: Object = Object::new(
    "`placement`",
    &[
        key("constraints", TEXTS),
        key("max_replicas_per_node", Integer),
        key("preferences", List(&Object(&PREFERENCE), Merge::Append)),
    ],
);
static PREFERENCE: Object = Object::new("a preference", &[key("spread", Text)]);

static RESOURCES: Object = Object::new(
    "`resources`",
    &[
        key("limits", Object(&LIMITS)),
        key("reservations", Object(&RESERVATIONS)),
    ],
);
static LIMITS: Object = Object::new(
    "`limits`",
    &[key("cpus", Number), key("memory", Size), key("pids", Integer)],
);
static RESERVATIONS: Object = Object::new(
    "`reservations`",
    &[
        key("cpus", Number),
        key("devices", List(&Object(&DEVICE_REQUEST), Merge::Append)),
        key(
            "generic_resources",
            List(&Object(&GENERIC_RESOURCE), Merge::Append),
        ),
        key("memory", Size),
    ],
);
static GENERIC_RESOURCE: Object = Object::new(
    "a generic resource",
    &[key("discrete_resource_spec", Object(&DISCRETE_RESOURCE))],
);
static DISCRETE_RESOURCE: Object = Object::new(
    "`discrete_resource_spec`",
    &[key("kind", Text), key("value", Number)],
);
static DEVICE_REQUEST: Object = Object::new(
    "a device request",
    &[
        required("capabilities", TEXTS),
        key("count", Scalar),
        key("device_ids", TEXTS),
        key("driver", Text),
        key("options", LABELS),
    ],
);
pub(crate) static GPUS: Shape = List(&Object(&GPU), Merge::Append);
/// As [`DEVICE_REQUEST`], where capabilities need not be named.
static GPU: Object = Object::new(
    "a GPU request",
    &[
        key("capabilities", TEXTS),
        key("count", Scalar),
        key("device_ids", TEXTS),
        key("driver", Text),
        key("options", LABELS),
    ],
);

static RESTART_POLICY: Object = Object::new(
    "`restart_policy`",
    &[
        key("condition", Text),
        key("delay", Duration),
        key("max_attempts", Integer),
        key("window", Duration),
    ],
);

static UPDATE: Object = Object::new(
    "an update",
    &[
        key("delay", Duration),
        key("failure_action", Text),
        key("max_failure_ratio", Number),
        key("monitor", Duration),
        key("order", Word(&["start-first", "stop-first"])),
        key("parallelism", Integer),
    ],
);

static DEVELOP: Object = Object::new(
    "`develop`",
    &[key("watch", List(&Object(&WATCH), Merge::By(&["path"])))],
);
static WATCH: Object = Object::new(
    "a watch rule",
    &[
        required(
            "action",
            Word(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]),
        ),
        key("exec", Object(&HOOK)),
        key("ignore", ONE_OR_TEXTS),
        key("include", ONE_OR_TEXTS),
        key("initial_sync", Bool),
        required("path", Path),
        key("target", Text),
    ],
);

static DEVICE: Object = Object::new(
    "a device",
    &[
        key("permissions", Text),
        required("source", Text),
        key("target", Text),
    ],
)
.short(short::device);

static ENV_FILE: Object = Object::new(
    "an env file",
    &[
        key("format", Word(&["raw"])),
        required("path", Path),
        key("required", Bool),
    ],
)
.short(short::env_file);

static EXTENDS: Object =
    Object::new("`extends`", &[key("file", Path), required("service", Text)]).short(short::extends);

static FILE_GRANT: Object = Object::new(
    "a file in the container",
    &[
        key("gid", Text),
        key("mode", Mode),
        required("source", Text),
        key("target", Text),
        key("uid", Text),
    ],
)
.short(short::file_grant);

static HEALTHCHECK: Object = Object::new(
    "`healthcheck`",
    &[
        key("disable", Bool),
        key("interval", Duration),
        key("retries", Integer),
        key("start_interval", Duration),
        key("start_period", Duration),
        key("test", Special(special::health_test)),
        key("timeout", Duration),
    ],
);

static HOOK: Object = Object::new(
    "a hook",
    &[
        required("command", COMMAND),
        key("environment", VARIABLES),
        key("privileged", Bool),
        key("user", Text),
        key("working_dir", Text),
    ],
);

static INIT: Object = Object::new(
    "an init container",
    &[
        key("command", COMMAND),
        key("environment", VARIABLES),
        key("image", Text),
        key("per_replica", Bool),
        key("privileged", Bool),
        key("user", Text),
        key("working_dir", Text),
    ],
);

static LOGGING: Object =
    Object::new("`logging`", &[key("driver", Text), key("options", OPTIONS)]).identity("driver");

static MODEL_USE: Object = Object::new(
    "the use of a model",
    &[key("endpoint_var", Text), key("model_var", Text)],
);

static ATTACHMENT: Object = Object::new(
    "a service's network",
    &[
        key("aliases", TEXTS),
        key("driver_opts", OPTIONS),
        key("gw_priority", Integer),
        key("interface_name", Text),
        key("ipv4_address", Text),
        key("ipv6_address", Text),
        key("link_local_ips", TEXTS),
        key("mac_address", Text),
        key("priority", Integer),
    ],
);

static PORT: Object = Object::new(
    "a port",
    &[
        key("app_protocol", Text),
        key("host_ip", Text),
        key("mode", Text),
        key("name", Text),
        key("protocol", Text),
        key("published", Scalar),
        required("target", Integer),
    ],
)
.short(super::port::short);

static PROVIDER: Object = Object::new("`provider`", &[key("options", Map(&Any)), required("type", Text)]);

pub(crate) static MOUNT: Object = Object::new(
    "a volume of a service",
    &[
        key("bind", Object(&BIND)),
        key("consistency", Text),
        key("image", Object(&IMAGE_MOUNT)),
        key("read_only", Bool),
        key("source", Text),
        key("target", Text),
        key("tmpfs", Object(&TMPFS)),
        required(
            "type",
            Word(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]),
        ),
        key("volume", Object(&VOLUME_MOUNT)),
    ],
)
.short(super::mount::short)
.finish(special::finish_mount);
static BIND: Object = Object::new(
    "`bind`",
    &[
        key("create_host_path", Bool),
        key("propagation", Text),
        key(
            "recursive",
            Word(&["enabled", "disabled", "writable", "readonly"]),
        ),
        key("selinux", Word(&["z", "Z"])),
    ],
);
static IMAGE_MOUNT: Object = Object::new("`image`", &[key("subpath", Text)]);
static TMPFS: Object = Object::new("`tmpfs`", &[key("mode", Mode), key("size", Size)]);
static VOLUME_MOUNT: Object = Object::new(
    "`volume`",
    &[key("labels", LABELS), key("nocopy", Bool), key("subpath", Text)],
);

static NETWORK: Object = Object::new(
    "a network",
    &[
        key("attachable", Bool),
        key("driver", Text),
        key("driver_opts", OPTIONS),
        key("enable_ipv4", Bool),
        key("enable_ipv6", Bool),
        EXTERNAL,
        key("internal", Bool),
        key("ipam", Object(&ADDRESSES)),
        key("labels", LABELS),
        key("name", Text),
    ],
);
static ADDRESSES: Object = Object::new(
    "`ipam`",
    &[
        key("config", List(&Object(&SUBNET), Merge::By(&["subnet"]))),
        key("driver", Text),
        key("options", OPTIONS),
    ],
);
static SUBNET: Object = Object::new(
    "a subnet",
    &[
        key("aux_addresses", OPTIONS),
        key("gateway", Text),
        key("ip_range", Text),
        key("subnet", Text),
    ],
);

static VOLUME: Object = Object::new(
    "a volume",
    &[
        key("driver", Text),
        key("driver_opts", OPTIONS),
        EXTERNAL,
        key("labels", LABELS),
        key("name", Text),
    ],
);

static SECRET: Object = Object::new(
    "a secret",
    &[
        key("driver", Text),
        key("driver_opts", OPTIONS),
        key("environment", Text),
        EXTERNAL,
        key("file", Path),
        key("labels", LABELS),
        key("name", Text),
        key("template_driver", Text),
    ],
);

static CONFIG: Object = Object::new(
    "a config",
    &[
        key("content", Text),
        key("environment", Text),
        EXTERNAL,
        key("file", Path),
        key("labels", LABELS),
        key("name", Text),
        key("template_driver", Text),
    ],
);

static MODEL: Object = Object::new(
    "a model",
    &[
        key("context_size", Integer),
        required("model", Text),
        key("name", Text),
        key("runtime_flags", APPENDED),
    ],
);

const EXTERNAL: Key = key("external", Special(special::external));
