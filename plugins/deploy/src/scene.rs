//! Which colour is live, and what that makes of the containers that are there: from the router's answer to a decision, without touching
//! anything.

use windlass_guest::containers::Container;

use crate::names::{self, Colour};
use crate::router::{Answer, Live};

/// What is seen of a blue-green service.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) answer: Answer,
    /// Whether the router had to be started before it could be asked.
    pub(crate) was_down: bool,
    /// Those that have a colour.
    pub(crate) containers: Vec<Container>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody can say which colour has traffic: nothing may be touched.
    Lost(String),
    /// There has never been traffic.
    First { target: Colour },
    /// One is live, and the other may be made.
    Next { live: Live, target: Colour },
    /// This very run has switched, and was cut off after that.
    Switched { live: Live },
}

impl Scene {
    pub(crate) fn of(&self, colour: Colour) -> Vec<&Container> {
        let of_colour = |container: &&Container| names::colour(container) == Some(colour);
        self.containers.iter().filter(of_colour).collect()
    }

    fn runs(&self, colour: Colour) -> bool {
        self.of(colour).iter().any(|container| container.is_running())
    }

    fn is_own(&self, colour: Colour, run: &str) -> bool {
        self.of(colour)
            .iter()
            .any(|container| names::made_by(container, run))
    }

    /// The highest generation that containers of a colour were made for.
    pub(crate) fn generation(&self, colour: Colour) -> u64 {
        let generations = self.of(colour).into_iter().map(names::generation);
        generations.max().unwrap_or(0)
    }

    /// The colour that had the traffic before this one, where its containers are there. What was made later than the live ones was a candidate.
    pub(crate) fn before(&self, live: Colour) -> Option<Colour> {
        let other = live.other();
        let is_there = !self.of(other).is_empty();
        (is_there && self.generation(other) < self.generation(live)).then_some(other)
    }

    pub(crate) fn verdict(&self, run: &str) -> Verdict {
        match &self.answer {
            Answer::Lost(why) => Verdict::Lost(why.clone()),
            Answer::Nothing => self.without_live(run),
            Answer::Live(live) => {
                let other = live.colour.other();
                if self.was_down && !self.runs(live.colour) && self.runs(other) {
                    let words = format!(
                        "it was down, its file says {}, and only {} runs",
                        live.colour.name(),
                        other.name()
                    );
                    return Verdict::Lost(words);
                }
                match self.is_own(live.colour, run) {
                    true => Verdict::Switched { live: live.clone() },
                    false => Verdict::Next {
                        live: live.clone(),
                        target: other,
                    },
                }
            }
        }
    }

    /// The first colour ever is made for generation 1: a later one means that the router has forgotten what it knew.
    fn without_live(&self, run: &str) -> Verdict {
        let latest = self.generation(Colour::Blue).max(self.generation(Colour::Green));
        if latest > 1 {
            let words =
                format!("it says that no colour is live, and there are containers of generation {latest}");
            return Verdict::Lost(words);
        }
        let both = [Colour::Blue, Colour::Green];
        let own = both.into_iter().find(|colour| self.is_own(*colour, run));
        let free = both.into_iter().find(|colour| self.of(*colour).is_empty());
        Verdict::First {
            target: own.or(free).unwrap_or(Colour::Blue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(colour: &str, generation: u64, state: &str, run: &str) -> Container {
        let labels = [
            (names::COLOUR, colour.to_owned()),
            (names::GENERATION, generation.to_string()),
            ("windlass.run", run.to_owned()),
        ];
        Container {
            state: state.into(),
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Container::default()
        }
    }

    #[track_caller]
    fn check(answer: Answer, was_down: bool, containers: Vec<Container>, expected: &str) {
        let scene = Scene {
            answer,
            was_down,
            containers,
        };
        let found = match scene.verdict("now") {
            Verdict::Lost(_) => "lost".to_owned(),
            Verdict::First { target } => format!("first {}", target.name()),
            Verdict::Next { live, target } => format!("{} to {}", live.colour.name(), target.name()),
            Verdict::Switched { live } => format!("switched to {}", live.colour.name()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_router_decides() {
        let live = |colour, generation| {
            Answer::Live(Live {
                colour,
                generation,
                digest: "d".into(),
            })
        };
        let blue = || container("blue", 1, "running", "before");
        let green = || container("green", 2, "running", "before");
        check(Answer::Nothing, false, vec![], "first blue");
        check(Answer::Nothing, false, vec![blue()], "first green");
        check(
            Answer::Nothing,
            false,
            vec![container("blue", 1, "running", "now")],
            "first blue",
        );
        check(Answer::Nothing, false, vec![blue(), green()], "lost");
        check(Answer::Lost("?".into()), false, vec![blue()], "lost");
        // A candidate beside the live one has no traffic, whatever its generation says.
        check(
            live(Colour::Blue, 1),
            false,
            vec![blue(), green()],
            "blue to green",
        );
        check(
            live(Colour::Green, 2),
            false,
            vec![blue(), green()],
            "green to blue",
        );
        check(
            live(Colour::Green, 2),
            false,
            vec![container("green", 2, "running", "now")],
            "switched to green",
        );
        // The file of a router that was down counts if those containers run.
        check(live(Colour::Blue, 1), true, vec![blue()], "blue to green");
        check(live(Colour::Blue, 1), true, vec![green()], "lost");
        check(live(Colour::Blue, 1), true, vec![], "blue to green");
    }

    #[test]
    fn the_colour_before_is_older() {
        let scene = |blue: u64, green: u64| Scene {
            answer: Answer::Nothing,
            was_down: false,
            containers: vec![
                container("blue", blue, "exited", "x"),
                container("green", green, "running", "x"),
            ],
        };
        assert_eq!(scene(1, 2).before(Colour::Green), Some(Colour::Blue));
        assert_eq!(scene(3, 2).before(Colour::Green), None);
    }
}
