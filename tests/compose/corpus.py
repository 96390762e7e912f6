#!/usr/bin/python3
"""`windlass compose config` against docker-compose 1.29 over public Compose files: see CORPUS.md.

    corpus.py [--windlass BINARY] [--details FILE] DIRECTORY    compares over all Compose files below DIRECTORY
    corpus.py --schema compose-spec.json                        holds keys.json against the schema

A case is a Compose file alone, or laid over the usual one beside it. Both tools start beside it with a cleared
environment: PATH, HOME=/home/me, COMPOSE_PROJECT_NAME=case, and a value for every variable that the files use without a default and no `.env`
beside them sets; which value, VARIABLES says. What a checkout cannot have, because it is each user's own, is made: env
files, empty, and build contexts.

docker-compose runs in a fork of this process, which has its modules loaded: starting it anew for every file would take
half an hour.
"""

import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).parent
FILE = re.compile(r"(compose[^/]*|compose/.*)\.ya?ml$", re.IGNORECASE)
USUAL = re.compile(r"((?:docker-)?compose)\.ya?ml$")

# The first whose words are in the name of the variable.
VARIABLES = [
    ("PORT", "8080"),
    ("UID|GID|PUID|COUNT|NUM|REPLICAS|RETRIES|CPU|WORKERS|LIMIT", "1"),
    ("MEM|SIZE", "64m"),
    ("INTERVAL|TIMEOUT|PERIOD|DELAY", "30s"),
    ("SUBNET|CIDR", "10.9.0.0/16"),
    ("BIND|_IP|^IP|ADDR|IPV4", "10.9.0.9"),
    ("DIR|PATH|ROOT|FOLDER|DATA|VOLUME|HOME|LOCATION|STORAGE|MOUNT|SOCK|FILE|PWD", "/srv/data"),
    ("ENABLE|DISABLE|DEBUG|USE_|READ_ONLY", "false"),
    ("", "value"),
]

# Keys of a service that both print in one form: they are compared as they are, without a detour over our reader.
SAME_FORM = """cap_add cap_drop container_name environment hostname image init ipc labels network_mode pid privileged
    read_only restart security_opt stop_signal user working_dir""".split()

# What docker-compose says beside the reason.
WITHOUT_REASON = re.compile(r"The \S+ variable is not set|The Compose file|ERROR: The Compose file|Version |For more|Some |Compose does not use swarm")

# Lists whose order means nothing: docker-compose sorts what it merges.
SETS = "aliases cap_add cap_drop configs devices dns dns_search expose links ports secrets security_opt tmpfs volumes".split()

# Where the two differ and ours is right: the place, how their value tells, and why.
EXPLAINED = [
    (r"/labels/[^/]+$", lambda ours, theirs: str(theirs).lower() == ours, "it writes YAML's true and false as Python does"),
    (r"/ports$", lambda ours, theirs: any(port["target"] > 65535 for port in theirs), "2222:22 without quotes is a number of YAML 1.1, in base 60"),
    (r"/(ports|tmpfs)$", lambda ours, theirs: [one for at, one in enumerate(theirs) if one not in theirs[:at]] == ours, "it merges an element to a second one that is equal"),
    (r"/(environment/[^/]+|image)$", lambda ours, theirs: "$$" in theirs or theirs == ours + "}", "it expands nothing in an env file, nor inside of a default"),
    (r"/healthcheck$", lambda ours, theirs: ours == {"disable": False} and theirs == "none", "it takes `disable: false` for true"),
    (r"/pull_policy$", lambda ours, theirs: theirs is None, "it forgets the key when it merges files"),
    (r"^/networks/[^/]+/(external|name)$", lambda ours, theirs: theirs in (None, "case_coolify"), "it forgets `name` beside `external: false` when it merges files"),
    (r"/args/[^/]+$", lambda ours, theirs: ours is None and theirs == "", "it makes an argument without a value empty: the Dockerfile's default is lost"),
]

def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--windlass", default="target/debug/windlass")
    arguments.add_argument("--schema")
    arguments.add_argument("--details", help="a file for the outcome of every case, as JSON lines")
    arguments.add_argument("directory", nargs="?")
    options = arguments.parse_args()
    missing = schema_gaps(json.loads(pathlib.Path(options.schema).read_text())) if options.schema else []
    for gap in missing:
        print(gap)
    if options.directory:
        windlass = os.path.abspath(options.windlass)
        import compose.cli.main  # noqa: F401  every fork has it then
        cases = [(windlass, case) for case in find_cases(pathlib.Path(options.directory).resolve())]
        # A fork for each case: docker-compose keeps state in its modules.
        with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
            outcomes = list(pool.imap(judge, cases, chunksize=1))
        if options.details:
            with open(options.details, "w") as file:
                file.writelines(json.dumps(outcome) + "\n" for outcome in outcomes)
        report(outcomes)
    sys.exit(1 if missing else 0)


def find_cases(root):
    for directory, inner, names in os.walk(root):
        inner.sort()
        named = [name for name in sorted(names) if FILE.search(f"{os.path.basename(directory)}/{name}")]
        files = [name for name in named if is_compose(pathlib.Path(directory, name))]
        usual = next((name for name in files if USUAL.match(name)), None)
        for name in files:
            yield directory, [name]
            if usual and name != usual and name.startswith(USUAL.match(usual)[1]):
                yield directory, [usual, name]


def is_compose(path):
    try:
        return re.search(r"^[\"']?(services|include)[\"']?\s*:", path.read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return False


def judge(arguments):
    windlass, (directory, files) = arguments
    os.chdir(directory)
    texts = [pathlib.Path(name).read_text() for name in files]
    documents = [document for document in map(parse, texts) if isinstance(document, dict)]
    prepare(documents)
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/home/me", **variables("\n".join(texts)), "COMPOSE_PROJECT_NAME": "case"}
    profiles = sorted({str(one) for service in services(documents) for one in service.get("profiles") or []})
    flags = [flag for name in files for flag in ("-f", name)] + [flag for name in profiles for flag in ("--profile", name)]
    outcome = {"directory": directory, "files": files, "differences": []}
    ours, outcome["we refuse"] = run(windlass, flags, environment)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as declarations:
        if missing := undeclared(outcome["we refuse"]):
            outcome["completed"] = outcome["we refuse"]
            json.dump(missing, declarations)
            declarations.flush()
            flags += ["-f", declarations.name]
            ours, outcome["we refuse"] = run(windlass, flags, environment)
        theirs, outcome["they refuse"] = docker_compose(flags, environment)
    if not outcome["we refuse"] and not outcome["they refuse"]:
        outcome["differences"] = compare(windlass, ours, theirs, environment)
    return outcome


def undeclared(reasons):
    """The networks and volumes that a file uses and does not declare, if nothing else is wrong with it."""
    found = [re.search(r"there is no (network|volume) `([^`]+)`", line) for line in reasons or []]
    declared = {"networks": {}, "volumes": {}}
    for one in found if all(found) else ():
        declared[one[1] + "s"][one[2]] = {}
    return {key: names for key, names in declared.items() if names}


def parse(text):
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None


def services(documents):
    for document in documents:
        found = document.get("services")
        yield from (one for one in found.values() if isinstance(one, dict)) if isinstance(found, dict) else ()


def prepare(documents):
    for service in services(documents):
        files, build = service.get("env_file") or [], service.get("build")
        for file in files if isinstance(files, list) else [files]:
            file = file.get("path") if isinstance(file, dict) else file
            make(file, lambda path: path.parent.mkdir(parents=True, exist_ok=True) or path.touch())
        make(build.get("context") if isinstance(build, dict) else build, lambda path: path.mkdir(parents=True))


def make(path, how):
    if isinstance(path, str) and not re.search(r"\$|:|^[~/]", path) and not os.path.exists(path):
        try:
            how(pathlib.Path(path))
        except OSError:
            pass


def variables(text):
    """Those without a default, by name."""
    here = pathlib.Path(".env")
    known = set(re.findall(r"^(?:export\s+)?(\w+)\s*=", here.read_text(), re.MULTILINE)) if here.is_file() else set()
    text = text.replace("$$", "")
    used = set(re.findall(r"\$(\w+)", text)) | set(re.findall(r"\$\{(\w+)(?:\}|:?\?)", text))
    names = [name for name in sorted(used - known) if not name[0].isdigit()]
    return {name: next(value for words, value in VARIABLES if re.search(words, name.upper())) for name in names}


def run(windlass, flags, environment):
    command = [windlass, "compose", "config", "--format", "json", "--project-name", "case", *flags]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if ended.returncode == 0:
        return json.loads(ended.stdout), None
    return None, re.findall(r"^error.*", ended.stderr, re.MULTILINE) or [f"exit {ended.returncode}: {ended.stderr}"]


def docker_compose(flags, environment):
    """As the command does it, in this process, which does nothing after it but to compare."""
    from compose.cli.main import main
    saved = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        os.dup2(out.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        sys.argv = ["docker-compose", *flags, "-p", "case", "config"]
        os.environ.clear()
        os.environ.update(environment)
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:  # It fails on some files with an exception of Python's.
            code = f"{type(error).__name__}: {error}"
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        out.seek(0)
        errors.seek(0)
        if not code:
            return out.read(), None
        lines = [line for line in errors.read().splitlines() if line and not WITHOUT_REASON.match(line)]
        return None, lines[:1] or [str(code)]


def compare(windlass, ours, printed, environment):
    theirs = yaml.load(printed, yaml.CSafeLoader)
    found = []
    for name, service in ours["services"].items():
        for key in SAME_FORM:
            if key in service:
                found += differences(as_set(text(service[key])), as_set(text(theirs["services"][name].get(key))), f"/services/{name}/{key}")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        # `service:` is a form of its own: the specification has `container:` and names.
        file.write(re.sub(r"^(\s+- )service:(\S+?)(?::rw)?$", r"\1\2", printed, flags=re.MULTILINE))
        file.flush()
        read_back, refused = run(windlass, ["-f", file.name, "--profile", "*"], environment)
    if refused:
        return found + [["", "what docker-compose prints", refused]]
    for document in (ours, read_back):
        normalise(document)
    return found + differences(ours, read_back, "")


def as_set(value):
    return sorted(value) if isinstance(value, list) else value


def text(value):
    """docker-compose leaves a number a number where we have text."""
    if isinstance(value, dict):
        return {key: text(inner) for key, inner in value.items()}
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, (int, float)) else value


def normalise(document):
    """Differences of form alone: tests/e2e/compose.rs has the same, with the reasons."""
    for key in [key for key in document if key.startswith("x-")]:
        del document[key]
    for service in document.get("services", {}).values():
        service["links"] = [re.sub(r"^([^:]+):\1$", r"\1", link) for link in service.get("links", [])]
        for port in service.get("ports", []):
            port.pop("mode", None)
            if port.get("protocol") == "tcp":
                del port["protocol"]
        if service.get("healthcheck", {}).get("disable") or service.get("healthcheck", {}).get("test") == ["NONE"]:
            service["healthcheck"] = "none"
        for holder in (service, *service.get("networks", {}).values()):
            for key in SETS:
                holder.get(key, []).sort(key=lambda item: json.dumps(item, sort_keys=True))


def differences(ours, theirs, place):
    if ours == theirs:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = {**ours, **theirs}
        return [one for key in keys for one in differences(ours.get(key), theirs.get(key), f"{place}/{key}")]
    is_set = place.rsplit("/", 1)[-1] in SETS
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs) and not is_set:
        return [one for at, pair in enumerate(zip(ours, theirs)) for one in differences(*pair, f"{place}/{at}")]
    return [[place, ours, theirs]]


def report(outcomes):
    alone = [outcome for outcome in outcomes if len(outcome["files"]) == 1]
    groups = collections.defaultdict(list)
    for one in outcomes:
        groups[not one["we refuse"], not one["they refuse"]].append(one)
    both, only_ours, only_theirs = groups[True, True], groups[True, False], groups[False, True]
    equal = [one for one in both if not one["differences"]]
    print(f"{len(alone)} files, {len(outcomes) - len(alone)} of them once more over the usual file beside them: {len(outcomes)} cases")
    print(f"{len(both)} accepted by both, {len(equal)} of them equal; {len(groups[False, False])} refused by both")
    completed = [one for one in both if "completed" in one]
    print(f"{len(completed)} of those accepted use networks or volumes that they do not declare, which were declared for them")
    print(f"{len(only_theirs)} refused by us alone, {len(only_ours)} by docker-compose alone\n")
    table("Differences, by key", both, lambda one: {kind(*difference) for difference in one["differences"]})
    table("Refused by us alone", only_theirs, lambda one: {reason(line) for line in one["we refuse"]})
    table("Refused by docker-compose alone", only_ours, lambda one: {reason(line) for line in one["they refuse"]})


def kind(place, ours, theirs):
    why = [why for where, tells, why in EXPLAINED if re.search(where, place) and tells(ours, theirs)]
    return f"{general(place)}: {why[0] if why else 'NOT EXPLAINED'}"


def general(place):
    parts = place.split("/")
    if len(parts) > 2:
        parts[2] = "*"
    inside = ("environment", "labels", "args", "sysctls", "options", "driver_opts")
    return "/".join("*" if part.isdigit() or at and parts[at - 1] in inside else part for at, part in enumerate(parts))


def reason(line):
    line = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", "_", line)
    return re.sub(r"services\.\S+", "services._", re.sub(r"/\S+", "/_", line))[:150]


def table(title, outcomes, kinds):
    found = collections.defaultdict(list)
    for outcome in outcomes:
        for one in kinds(outcome):
            found[one].append(outcome)
    print(title)
    for title, ones in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"  {len(ones):5}  {title}    e.g. {ones[0]['directory']} {' '.join(ones[0]['files'])}")
    print()


def schema_gaps(schema):
    """Keys and forms of the schema that keys.json has no sample of, and the other way around."""
    samples = json.loads((HERE / "keys.json").read_text())
    objects = {name: {key: values for keys, values in entries.items() for key in keys.split()} for name, entries in samples.items()}
    gaps = []

    def forms(node):
        while "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        if "oneOf" in node:
            return [form for inner in node["oneOf"] for form in forms(inner)]
        kinds = node.get("type", "object")
        return [(kind, node) for kind in (kinds if isinstance(kinds, list) else [kinds])]

    def check(node, values, place):
        # A key without a value is as if it were not there.
        for kind, node in (form for form in forms(node) if form[0] != "null"):
            fitting = [value for value in values if is_a(value, kind)]
            if not fitting:
                gaps.append(f"{place}: no {kind}")
            gaps.extend(f"{place}: no {word}" for word in node.get("enum", []) if word not in fitting)
            names = [value["$"] for value in fitting if isinstance(value, dict) and "$" in value]
            if kind == "object" and "properties" in node:
                ours = {key: value for name in names for key, value in objects[name].items()}
                if not names:
                    gaps.append(f"{place}: no object of keys.json")
                gaps.extend(f"{place}: {key} is not in the schema" for key in ours if key not in node["properties"])
                for key, inner in node["properties"].items():
                    if key in ours:
                        check(inner, ours[key], f"{place}/{key}")
                    else:
                        gaps.append(f"{place}: no {key}")
            for pattern, inner in node.get("patternProperties", {}).items():
                if kind == "object" and pattern != "^x-":
                    check(inner, [one for value in fitting if "$" not in value for one in value.values()], f"{place}/*")
            if kind == "array":
                check(node["items"], [item for value in fitting for item in value], f"{place}/0")

    check({"type": "object", "properties": schema["properties"]}, [{"$": "top"}], "")
    return gaps


def is_a(value, kind):
    kinds = {"string": str, "object": dict, "array": list, "boolean": bool, "null": type(None), "integer": int, "number": (int, float)}
    return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))


if __name__ == "__main__":
    main()
