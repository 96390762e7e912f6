//! An undo that was cut off: what a crash or a lost answer has hidden is asked of a person, and nothing is undone twice. The
//! plugin of these pipelines knows of no effect what became of it, so that only a person can.

use super::contract::empty;
use windlass_tests::{
    component::guest,
    counter::Counter,
    workspace::{Ended, Workspace},
};

/// `first` has two effects that `last` follows with one.
struct Site {
    workspace: Workspace,
    counter: Counter,
}

/// How the last of two stages goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Fails,
    Succeeds,
}

impl Site {
    fn new(last: Last) -> Self {
        let (workspace, counter) = (empty(), Counter::start());
        let server = counter.url();
        let fails = if last == Last::Fails {
            ", fail-after: 1"
        } else {
            ""
        };
        let stage = |name: &str, more: &str, fails: &str| {
            format!(
                "  {name}:\n    uses: ./counted.wasm\n{more}    with: {{ server: \"{server}\", effects: [{name}-put, {name}-post], forgets: true{fails} }}\n    allow: {{ http: [\"{server}\"] }}\n    rollback: auto\n"
            )
        };
        let (first, last) = (
            stage("first", "", ""),
            stage("last", "    needs: [first]\n", fails),
        );
        let tidy = "  tidy:\n    uses: health-check\n    with: { checks: { there: { file: /workspace/windlass.yaml } } }\n    allow: { files: { /workspace: ro } }\n";
        let text = format!("windlass: 1\nname: undone\nstages:\n{first}{last}finally:\n{tidy}");
        workspace.write("windlass.yaml", &text);
        std::fs::write(workspace.path("counted.wasm"), guest("counted").bytes).expect("written");
        Self { workspace, counter }
    }

    fn windlass(&self, arguments: &[&str]) -> Ended {
        self.workspace.windlass(arguments)
    }

    /// Has to be killed at this place.
    #[track_caller]
    fn killed(&mut self, place: &str, arguments: &[&str]) {
        self.workspace.set("WINDLASS_FAILPOINT", place);
        let killed = self.windlass(arguments);
        assert_eq!(killed.code, -1, "{place}: {}", killed.said());
        self.workspace.set("WINDLASS_FAILPOINT", "");
    }

    /// How often the effects were undone: of `first` the put, then the post; of `last` the same.
    fn undone(&self) -> Vec<usize> {
        let effects = self.counter.effects();
        let of = |name: &str| effects.get(name).map_or(0, |effect| effect.undone);
        ["/first-put", "/first-post", "/last-put", "/last-post"]
            .map(of)
            .to_vec()
    }

    /// Whether `finally` has run.
    fn is_tidied(&self) -> bool {
        let shown = self
            .windlass(&["runs", "show", "--format", "json"])
            .expect(0)
            .json();
        let stages = shown["stages"].as_array().expect("a list");
        let tidy = stages.iter().find(|stage| stage["name"] == "tidy");
        tidy.expect("it is a stage")["status"] == "succeeded"
    }

    fn status(&self) -> String {
        let shown = self.windlass(&["runs", "show", "--format", "json"]).expect(0);
        shown.json()["status"].as_str().expect("a word").to_string()
    }
}

/// Stops at the stage, names the command that goes on, and does nothing however often it is repeated.
#[track_caller]
fn asks(site: &Site, repeated: &[&str], goes_on_with: &str) {
    let undone = site.undone();
    for _ in 0..2 {
        let asked = site.windlass(repeated).expect(3);
        let said = asked.said();
        let next = format!("next: windlass {goes_on_with} ");
        for words in [
            "stage `first` was cut off during `http.request`",
            "not undone: first",
            &next,
            "--assume 'first=done' (or not-done, after looking)",
        ] {
            assert!(said.contains(words), "{words} in {said}");
        }
        assert_eq!(site.status(), "needs-operator");
        assert_eq!(site.undone(), undone, "nothing on a guess: {said}");
    }
}

/// Where the undo of `first` deletes what it posted, as the fifth effect of a run whose third was the last one's only one.
const KILLS: [(&str, &str); 2] = [("effect.announced:5", "not-done"), ("effect.done:5", "done")];

#[test]
fn an_automatic_undo_whose_outcome_nobody_knows_waits_for_a_person() {
    for (place, answer) in KILLS {
        for command in ["rollback", "resume"] {
            let mut site = Site::new(Last::Fails);
            site.killed(place, &["run"]);
            asks(&site, &["resume"], "resume");
            asks(&site, &["rollback"], "resume");
            assert!(!site.is_tidied(), "the undo comes before it");
            let answer = format!("first={answer}");
            // What it goes on with was begun by the run itself: nobody has to say yes to it.
            let ended = site.windlass(&[command, "--assume", &answer]).expect(1);
            assert_eq!(site.undone(), [1, 1, 1, 0], "{place}: {}", ended.said());
            assert!(ended.said().contains("undone: first"), "{}", ended.said());
            assert_eq!(site.status(), "rolled-back");
            assert!(site.is_tidied());
            site.windlass(&["resume"]).expect(65);
            site.windlass(&["rollback", "--yes"]).expect(65);
        }
    }
}

#[test]
fn a_rollback_whose_outcome_nobody_knows_is_gone_on_with() {
    // The undo of `last` has the two before it.
    for (place, answer) in [("effect.announced:3", "not-done"), ("effect.done:3", "done")] {
        let mut site = Site::new(Last::Succeeds);
        site.windlass(&["run"]).expect(0);
        site.killed(place, &["rollback", "--yes"]);
        asks(&site, &["rollback"], "rollback");
        asks(&site, &["resume"], "rollback");
        let refused = site.windlass(&["rollback", "--assume", "frist=done"]).expect(64);
        assert!(
            refused.stderr.contains("there is no stage `frist`"),
            "{}",
            refused.stderr
        );
        let refused = site.windlass(&["rollback", "--after-restoring", "b1"]).expect(65);
        assert!(
            refused.stderr.contains("error[rollback.begun]"),
            "{}",
            refused.stderr
        );
        let answer = format!("first={answer}");
        let ended = site.windlass(&["rollback", "--assume", &answer]).expect(0);
        assert_eq!(site.undone(), [1, 1, 1, 1], "{place}: {}", ended.said());
        assert_eq!(site.status(), "rolled-back");
        site.windlass(&["rollback", "--yes"]).expect(65);
    }
}

#[test]
fn an_undo_whose_answer_was_lost_is_not_repeated_on_a_guess() {
    let site = Site::new(Last::Fails);
    site.counter.lose_answers(true);
    let failed = site.windlass(&["run"]).expect(3);
    assert!(failed.said().contains("not undone: first"), "{}", failed.said());
    assert_eq!(site.undone(), [0, 1, 1, 0]);
    site.counter.lose_answers(false);
    // The undo of `last` failed too: its stage is asked about before anything of `first` is touched.
    let asked = site.windlass(&["rollback", "--yes"]).expect(3);
    assert!(asked.said().contains("--assume 'last=done'"), "{}", asked.said());
    let asked = site.windlass(&["rollback", "--assume", "last=done"]).expect(3);
    assert!(asked.said().contains("--assume 'first=done'"), "{}", asked.said());
    assert_eq!(site.undone(), [0, 1, 1, 0], "{}", asked.said());
    let ended = site.windlass(&["rollback", "--assume", "first=done"]).expect(0);
    assert_eq!(site.undone(), [1, 1, 1, 0], "{}", ended.said());
    assert_eq!(site.status(), "rolled-back");
}

#[test]
fn a_run_that_is_not_being_undone_is_not_rolled_back_before_it_has_ended() {
    let mut site = Site::new(Last::Succeeds);
    site.killed("effect.done:1", &["run"]);
    let none = site.windlass(&["rollback", "--yes"]).expect(65);
    assert!(
        none.stderr.contains("there is no run to roll back"),
        "{}",
        none.stderr
    );
    let id = {
        let shown = site
            .windlass(&["runs", "show", "--format", "json"])
            .expect(0)
            .json();
        shown["id"].as_str().expect("an id").to_string()
    };
    let refused = site.windlass(&["rollback", &id, "--yes"]).expect(65);
    assert!(
        refused.stderr.contains("error[rollback.unfinished]"),
        "{}",
        refused.stderr
    );
}
