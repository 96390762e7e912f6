//! What a run that was interrupted has left of a container's replacement, and what the next run makes of it.

use windlass_guest::containers::Container;

use crate::names;
use crate::rolling::in_place;

#[derive(Debug, PartialEq)]
pub(crate) enum Leftover<'a> {
    None,
    /// Made and never started.
    NeverRan(&'a Container),
    /// The one before is still there, under its other name, and what took its place is not well or not there.
    HalfReplaced {
        broken: Option<&'a Container>,
        before: &'a Container,
        name: &'a str,
    },
}

/// For the container of a number. What this very run has begun, it goes on with.
pub(crate) fn find<'a>(all: &'a [Container], number: u32, run: &str, is_task: bool) -> Leftover<'a> {
    let of_number = || all.iter().filter(|container| container.number == number);
    let current = of_number().find(|container| in_place(container));
    let aside = of_number().filter_map(|container| {
        let (name, by) = names::put_aside(container)?;
        Some((container, name, by))
    });
    let begun = |(_, _, by): (&Container, &str, &str)| by == run;
    if current.is_some_and(|current| names::made_by(current, run)) || aside.clone().any(begun) {
        return Leftover::None;
    }
    // Ids of runs sort by the time at which they began.
    let last = aside.max_by_key(|(_, _, by)| *by);
    let is_bad = |current: &Container| {
        let has_ended_well = is_task && current.state == "exited" && current.exit_code == 0;
        !current.is_healthy() && !has_ended_well
    };
    match (current, last) {
        (None, Some((before, name, _))) => Leftover::HalfReplaced {
            broken: None,
            before,
            name,
        },
        (Some(current), Some((before, name, by))) if names::made_by(current, by) && is_bad(current) => {
            Leftover::HalfReplaced {
                broken: Some(current),
                before,
                name,
            }
        }
        (Some(current), _) if current.state == "created" => Leftover::NeverRan(current),
        _ => Leftover::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, state: &str, run: &str) -> Container {
        Container {
            id: name.into(),
            name: name.into(),
            number: 1,
            state: state.into(),
            health: "none".into(),
            labels: [("windlass.run".to_owned(), run.to_owned())].into(),
            ..Container::default()
        }
    }

    #[track_caller]
    fn check(all: &[Container], expected: &str) {
        let found = match find(all, 1, "r3", false) {
            Leftover::None => "none".to_owned(),
            Leftover::NeverRan(container) => format!("never {}", container.name),
            Leftover::HalfReplaced { broken, before, .. } => {
                format!(
                    "{} for {}",
                    before.name,
                    broken.map_or("nothing", |broken| &broken.name)
                )
            }
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_was_interrupted_is_found() {
        let aside = |run: &str| container(&names::aside("w", run), "exited", "r0");
        check(&[container("w", "running", "r1")], "none");
        check(&[container("w", "running", "r1"), aside("r1")], "none");
        check(
            &[container("w", "exited", "r1"), aside("r1")],
            "w-before-r1 for w",
        );
        check(&[aside("r1"), aside("r2")], "w-before-r2 for nothing");
        check(&[container("w", "created", "r1")], "never w");
        check(
            &[container("w", "created", "r1"), aside("r1")],
            "w-before-r1 for w",
        );
        // This run's own: it goes on.
        check(&[container("w", "created", "r3"), aside("r3")], "none");
        check(&[aside("r3")], "none");
    }
}
