//! What continuous integration services make of a log: folded groups and annotations. Which service it is, the caller's
//! environment says; nothing is read here.

/// A service whose log has groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ci {
    GitHub,
    GitLab,
    Buildkite,
}

impl Ci {
    /// The service that this environment belongs to.
    pub fn detect(variable: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty() && value != "false");
        if set("GITHUB_ACTIONS") {
            Some(Self::GitHub)
        } else if set("GITLAB_CI") {
            Some(Self::GitLab)
        } else if set("BUILDKITE") {
            Some(Self::Buildkite)
        } else {
            None
        }
    }

    /// The text with nothing left in it that the service takes for a command: plugins write to this log too.
    ///
    /// GitHub's runner reads `::command::` behind any indentation, and `##[command]` anywhere in a line.
    pub fn harmless(self, text: &str) -> String {
        if self != Self::GitHub {
            return text.into();
        }
        let mut safe = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            if line.trim_start().starts_with("::") {
                safe.push_str("| ");
            }
            safe.push_str(&line.replace("##[", "## ["));
        }
        safe
    }

    /// A group of lines that is folded, or open where something failed.
    pub fn group(self, name: &str, at_seconds: i64, title: &str, lines: &str, failed: bool) -> String {
        let lines = self.harmless(lines);
        match self {
            Self::GitHub if failed => format!("{title}\n{lines}"),
            Self::GitHub => format!("::group::{title}\n{lines}::endgroup::\n"),
            Self::GitLab => {
                let word: String = name
                    .chars()
                    .map(|each| if each.is_ascii_alphanumeric() { each } else { '_' })
                    .collect();
                let folded = if failed { "" } else { "[collapsed=true]" };
                format!(
                    "\u{1b}[0Ksection_start:{at_seconds}:stage_{word}{folded}\r\u{1b}[0K{title}\n{lines}\
                     \u{1b}[0Ksection_end:{at_seconds}:stage_{word}\r\u{1b}[0K\n"
                )
            }
            Self::Buildkite => format!("{} {title}\n{lines}", if failed { "+++" } else { "---" }),
        }
    }

    /// The line that puts an error beside the change, where the service has one.
    pub fn annotation(self, title: &str, message: &str) -> Option<String> {
        match self {
            Self::GitHub => Some(format!("::error title={}::{}\n", property(title), data(message))),
            Self::GitLab | Self::Buildkite => None,
        }
    }
}

/// GitHub's escapes for the text of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// GitHub's escapes for a command's property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let check = |name: &'static str, value: &'static str, expected| {
            let variable = move |asked: &str| (asked == name).then(|| value.to_string());
            assert_eq!(Ci::detect(&variable), expected, "{name}={value}");
        };
        check("GITHUB_ACTIONS", "true", Some(Ci::GitHub));
        check("GITLAB_CI", "true", Some(Ci::GitLab));
        check("BUILDKITE", "true", Some(Ci::Buildkite));
        check("BUILDKITE", "false", None);
        check("CI", "true", None);
    }

    #[test]
    fn a_plugins_text_is_no_command() {
        let check = |text: &str, shown: &str| assert_eq!(Ci::GitHub.harmless(text), shown);
        check("a :: b\n", "a :: b\n");
        check("one\n  ::error::x\nthree", "one\n|   ::error::x\nthree");
        check("[web] ##[add-mask]e\n", "[web] ## [add-mask]e\n");
        assert_eq!(Ci::GitLab.harmless("::x"), "::x");
        let group = Ci::GitHub.group("a", 7, "stage a", "::stop-commands::x\n", false);
        assert_eq!(group, "::group::stage a\n| ::stop-commands::x\n::endgroup::\n");
    }

    #[test]
    fn groups_and_annotations() {
        let group = |ci: Ci, failed| ci.group("a[x=1]", 7, "stage a", "one\n", failed);
        assert_eq!(group(Ci::GitHub, false), "::group::stage a\none\n::endgroup::\n");
        assert_eq!(
            group(Ci::GitHub, true),
            "stage a\none\n",
            "what failed is not folded away"
        );
        let section = group(Ci::GitLab, false);
        assert!(
            section.contains("section_start:7:stage_a_x_1_[collapsed=true]\r"),
            "{section:?}"
        );
        assert!(
            section.ends_with("section_end:7:stage_a_x_1_\r\u{1b}[0K\n"),
            "{section:?}"
        );
        assert_eq!(group(Ci::Buildkite, true), "+++ stage a\none\n");
        let annotation = Ci::GitHub.annotation("stage a, b", "50% of\n::set-env::x");
        assert_eq!(
            annotation.as_deref(),
            Some("::error title=stage a%2C b::50%25 of%0A::set-env::x\n")
        );
    }
}
