//! What containers are called, and the labels that tell the next run what they are: nothing of a deployment is kept anywhere else.

use windlass_guest::containers::Container;

/// The digest over all that a container was made from.
pub(crate) const FINGERPRINT: &str = "windlass.fingerprint";
pub(crate) const COLOUR: &str = "windlass.colour";
/// The generation that a colour was made to become.
pub(crate) const GENERATION: &str = "windlass.generation";
/// Earlier images of a service, the last first, parted by blanks.
pub(crate) const IMAGES: &str = "windlass.images";
/// Set for what is to end.
pub(crate) const TASK: &str = "windlass.task";
/// The service's place in the order.
pub(crate) const POSITION: &str = "windlass.position";
/// The run that made it; the host sets it.
const RUN: &str = "windlass.run";

const ASIDE: &str = "-before-";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Colour {
    Blue,
    Green,
}

impl Colour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Blue, Self::Green]
            .into_iter()
            .find(|colour| colour.name() == text)
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

/// The name of a container of a colour.
pub(crate) fn coloured(project: &str, service: &str, colour: Colour, number: u32) -> String {
    format!("{project}-{service}-{}-{number}", colour.name())
}

/// What the router finds a colour by.
pub(crate) fn alias(service: &str, colour: Colour) -> String {
    format!("{service}-{}", colour.name())
}

/// What a container is called while a run has another in its place.
pub(crate) fn aside(name: &str, run: &str) -> String {
    format!("{name}{ASIDE}{run}")
}

/// The name it had, and the run that put it aside.
pub(crate) fn put_aside(container: &Container) -> Option<(&str, &str)> {
    // A run's id has no dash; a service's name may have.
    container
        .name
        .rsplit_once(ASIDE)
        .filter(|(_, run)| !run.contains('-'))
}

pub(crate) fn colour(container: &Container) -> Option<Colour> {
    container
        .labels
        .get(COLOUR)
        .and_then(|colour| Colour::parse(colour))
}

pub(crate) fn generation(container: &Container) -> u64 {
    let label = container.labels.get(GENERATION);
    label.and_then(|label| label.parse().ok()).unwrap_or(0)
}

pub(crate) fn position(container: &Container) -> usize {
    let label = container.labels.get(POSITION);
    label.and_then(|label| label.parse().ok()).unwrap_or(0)
}

pub(crate) fn made_by(container: &Container, run: &str) -> bool {
    container.labels.get(RUN).is_some_and(|made| made == run)
}

pub(crate) fn has_fingerprint(container: &Container, fingerprint: &str) -> bool {
    container
        .labels
        .get(FINGERPRINT)
        .is_some_and(|label| label == fingerprint)
}

pub(crate) fn is_task(container: &Container) -> bool {
    container.labels.contains_key(TASK)
}

/// A reference as the engine takes it: without tag and digest, `latest`.
pub(crate) fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.contains(':') || image.contains('@') {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(with_tag("nginx"), "nginx:latest");
        assert_eq!(with_tag("127.0.0.1:5000/a"), "127.0.0.1:5000/a:latest");
        assert_eq!(with_tag("a@sha256:ab"), "a@sha256:ab");
        let container = Container {
            name: aside("p-web-1", "r1"),
            ..Container::default()
        };
        assert_eq!(put_aside(&container), Some(("p-web-1", "r1")));
        assert_eq!(Colour::parse("red"), None);
    }
}
