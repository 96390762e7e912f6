//! After a crash: did a program in the router's container do what it was to do? The router is asked; nothing is changed.

use windlass_guest::containers::Container;
use windlass_guest::{Error, PastEffect, Verdict};

use crate::config::{Config, Strategy};
use crate::host::Host;
use crate::names;
use crate::router::{self, Answer, At, Live};

/// `Unknown` for what is no program of this plugin in the router's container.
///
/// # Errors
/// Those of the engine.
pub fn reconcile(config: &Config, effect: &PastEffect, host: &mut dyn Host) -> Result<Verdict, Error> {
    let (Some(router), "containers.exec") = (&config.router, effect.function.as_str()) else {
        return Ok(Verdict::Unknown);
    };
    let routers = host.list(&config.project, &router.service)?;
    let in_use = |router: &&Container| router.is_running() && names::put_aside(router).is_none();
    let Some(container) = routers.iter().find(in_use) else {
        return Ok(Verdict::Unknown);
    };
    let mut seen = Vec::new();
    for (service, _) in config
        .strategy
        .iter()
        .filter(|(_, strategy)| **strategy == Strategy::BlueGreen)
    {
        let at = At {
            container: container.id.clone(),
            service: service.clone(),
            port: router.port,
        };
        let answered = match router::answer(host, &at)? {
            Answer::Live(live) => Some(live),
            Answer::Nothing => None,
            Answer::Lost(_) => return Ok(Verdict::Unknown),
        };
        seen.push((service, answered));
    }
    let words = effect.arguments["argv"].as_array().into_iter().flatten();
    let words: Vec<&str> = words.filter_map(|word| word.as_str()).collect();
    let input = effect.arguments["input"].as_str().unwrap_or_default();
    Ok(match judge(&seen, &words, input) {
        Some(true) => Verdict::Done,
        Some(false) => Verdict::NotDone,
        None => Verdict::Unknown,
    })
}

/// Of one service that is named in the input: `nc` has a command for HAProxy, and a reload of nginx is told what for.
fn judge(seen: &[(&String, Option<Live>)], words: &[&str], input: &str) -> Option<bool> {
    if !matches!(words, ["nc", ..] | ["nginx", "-s", "reload"]) {
        return None;
    }
    let plain = input.replace('\\', "");
    let words: Vec<&str> = plain.split_whitespace().collect();
    let (at, answered) = seen.iter().find_map(|(service, answered)| {
        let at = words.iter().position(|word| word == service)?;
        Some((at, answered))
    })?;
    Some(is_so(
        answered.as_ref(),
        Live::parse(&words[at + 1..].join(" ")).as_ref(),
    ))
}

/// It, or what came after it.
fn is_so(found: Option<&Live>, wanted: Option<&Live>) -> bool {
    match (found, wanted) {
        (Some(found), Some(wanted)) => found == wanted || found.generation > wanted.generation,
        (found, wanted) => found.is_none() && wanted.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Colour;

    #[test]
    fn the_answer_tells() {
        let service = "backend".to_owned();
        let check = |generation: Option<u64>, words: &[&str], input: &str, expected: Option<bool>| {
            let live = generation.map(|generation| Live {
                colour: Colour::Green,
                generation,
                digest: "sha256:ab".into(),
            });
            assert_eq!(judge(&[(&service, live)], words, input), expected, "{input}");
        };
        let set = "set map /router/live.map backend green\\ 8\\ sha256:ab\n";
        check(Some(8), &["nc", "127.0.0.1", "9999"], set, Some(true));
        check(Some(9), &["nc", "127.0.0.1", "9999"], set, Some(true));
        check(Some(7), &["nc", "127.0.0.1", "9999"], set, Some(false));
        check(None, &["nc", "127.0.0.1", "9999"], set, Some(false));
        check(
            None,
            &["nc", "127.0.0.1", "9999"],
            "del map /router/live.map backend\n",
            Some(true),
        );
        check(
            Some(8),
            &["nginx", "-s", "reload"],
            "backend green 8 sha256:ab\n",
            Some(true),
        );
        check(
            Some(8),
            &["nginx", "-s", "reload"],
            "backend nothing\n",
            Some(false),
        );
        check(Some(8), &["nginx", "-s", "reload"], "other nothing\n", None);
        check(Some(8), &["rm", "-rf"], set, None);
    }
}
