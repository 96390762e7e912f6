//! Names of projects and of what is in them.

/// What a directory's name leaves of itself as a project's name; empty where nothing is left.
pub(super) fn normal(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept = lower.chars().filter(|letter| is_project_letter(*letter));
    let kept: String = kept.collect();
    kept.trim_start_matches(['_', '-']).to_string()
}

pub(super) fn is_project(text: &str) -> bool {
    !text.is_empty() && normal(text) == text
}

pub(super) fn is_resource(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
}

fn is_project_letter(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_' || letter == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(normal("_My App (2)"), "myapp2");
        assert_eq!(
            [
                is_project("a-1"),
                is_project("-a"),
                is_project("A"),
                is_project("")
            ],
            [true, false, false, false]
        );
        assert_eq!(
            [is_resource("A.b-c_1"), is_resource("a b"), is_resource("")],
            [true, false, false]
        );
    }
}
