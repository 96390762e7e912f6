//! A secret that a program prints, or a plugin says, in any form is in no sink.

use windlass_tests::{component::guest, workspace::Workspace};

const SECRET: &str = "s3cr3t/wörd+with=all&kinds";

/// The forms in which it is printed, each by a real program.
const SCRIPT: &str = r#"
import base64, json, sys, urllib.parse
s = sys.argv[1]
b = s.encode()
for shift in range(3):
    print("b64", base64.b64encode(b"x" * shift + b).decode())
print("url64", base64.urlsafe_b64encode(b).decode())
print("hex", b.hex(), b.hex().upper())
print("url", urllib.parse.quote(s, safe=""))
print("json", json.dumps(s), json.dumps(s, ensure_ascii=False))
print("plain", s)
half = len(s) // 2
sys.stdout.write("split " + s[:half]); sys.stdout.flush()
sys.stdout.write(s[half:] + "\n"); sys.stdout.flush()
sys.stderr.write("error " + s + "\n")
print(json.dumps({"secret": s}))
sys.exit(int(sys.argv[2]))
"#;

#[test]
fn a_printed_secret_is_nowhere() {
    for exit in ["0", "1"] {
        let mut workspace = Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"));
        workspace.set("THE_SECRET", SECRET);
        workspace.write("print.py", SCRIPT);
        let script = workspace.path("print.py");
        workspace.write(
            "a.yaml",
            &format!(
                "windlass: 1\nname: leak\nsecrets: {{ it: env://THE_SECRET }}\nstages:\n  one:\n    uses: command\n    with: {{ argv: [python3, {0:?}, \"${{{{ secrets.it }}}}\", \"{exit}\"] }}\n    allow:\n      process: [\"python3 {1} * *\"]\n      secrets: {{ use: [it] }}\n",
                script.display().to_string(),
                script.display(),
            ),
        );
        is_nowhere(&workspace, exit == "0");
    }
}

#[test]
fn a_secret_that_a_plugin_says_is_nowhere() {
    for fails in [false, true] {
        let mut workspace = Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"));
        workspace.set("THE_SECRET", SECRET);
        std::fs::write(workspace.path("leaky.wasm"), guest("leaky").bytes).expect("written");
        workspace.write(
            "a.yaml",
            &format!(
                "windlass: 1\nname: leak\nsecrets: {{ it: env://THE_SECRET }}\nstages:\n  one:\n    uses: ./leaky.wasm\n    with: {{ secret: \"${{{{ secrets.it }}}}\", fail: {fails} }}\n    allow:\n      secrets: {{ reveal: [it] }}\n"
            ),
        );
        is_nowhere(&workspace, !fails);
    }
}

/// Runs `a.yaml` with everything that writes, and looks for every form in all that was written.
#[track_caller]
fn is_nowhere(workspace: &Workspace, succeeds: bool) {
    let ended = workspace.windlass([
        "run",
        "a.yaml",
        "--progress",
        "json",
        "--report",
        "junit=report.xml",
        "--report",
        "json=report.json",
    ]);
    assert_eq!(ended.code == 0, succeeds, "{}", ended.said());
    assert!(
        ended.stdout.contains("***"),
        "it was printed, and masked: {}",
        ended.said()
    );
    // And what a person sees, while it runs and afterwards.
    let plain = workspace.windlass(["run", "a.yaml"]);
    let logs = workspace.windlass(["runs", "logs", "--file", "a.yaml"]).expect(0);
    let shown = workspace.windlass(["runs", "show", "--file", "a.yaml"]).expect(0);
    let mut sinks = vec![
        ("events".to_string(), ended.said().into_bytes()),
        ("terminal".into(), plain.said().into_bytes()),
        ("logs".into(), logs.said().into_bytes()),
        ("history".into(), shown.said().into_bytes()),
        ("junit".into(), workspace.read("report.xml").into_bytes()),
        ("json".into(), workspace.read("report.json").into_bytes()),
    ];
    sinks.extend(
        workspace
            .state_files()
            .into_iter()
            .map(|(path, bytes)| (path.display().to_string(), bytes)),
    );
    assert!(
        sinks.iter().any(|(name, _)| name.contains("journal")),
        "the journal is among the sinks"
    );
    for (name, bytes) in &sinks {
        for form in forms() {
            let found = bytes.windows(form.len()).any(|window| window == form);
            assert!(!found, "{:?} is in {name}", String::from_utf8_lossy(&form));
        }
    }
}

/// Written out by hand: a list made by the code under test would prove nothing. The middle of each base64 form, which is the same
/// wherever the neighbours end.
fn forms() -> Vec<Vec<u8>> {
    let url = "s3cr3t%2Fw%C3%B6rd%2Bwith%3Dall%26kinds";
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let json = SECRET.replace('ö', "\\u00f6");
    let base64 = [
        "czNjcjN0L3fDtnJkK3dpdGg9YWxsJmtpbmRz",
        "MzY3IzdC93w7ZyZCt3aXRoPWFsbCZraW5k",
        "zM2NyM3Qvd8O2cmQrd2l0aD1hbGwma2lu",
    ];
    let mut forms = vec![SECRET.into(), url.into(), hex.clone(), hex.to_uppercase(), json];
    forms.extend(base64.iter().map(ToString::to_string));
    forms.into_iter().map(String::into_bytes).collect()
}
