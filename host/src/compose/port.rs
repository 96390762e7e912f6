//! `[[HOST_IP:]PUBLISHED:]TARGET[/PROTOCOL]`, ranges included, to ports.

use super::short::Json;
use serde_json::json;

const FORM: &str =
    "a port is [[HOST_IP:]PUBLISHED:]TARGET[/PROTOCOL], with numbers from 1 to 65535 or ranges of them";

/// First and last of a range.
type Range = (u16, u16);

pub(super) fn short(text: &str) -> Result<Vec<Json>, String> {
    let (addresses, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err("the protocol of a port is tcp, udp or sctp".to_string());
    }
    let (before, target) = match addresses.rsplit_once(':') {
        Some((before, target)) => (Some(before), target),
        None => (None, addresses),
    };
    let target = range(target)?;
    let (host, published) = match before {
        None => (None, None),
        Some(before) => host_and_published(before)?,
    };
    spread(target, published)?
        .into_iter()
        .map(|(target, published)| Ok(port(host, target, published, protocol)))
        .collect()
}

fn port(host: Option<&str>, target: u16, published: Option<String>, protocol: &str) -> Json {
    let mut port = json!({ "mode": "ingress" });
    if let Some(host) = host {
        port["host_ip"] = host.into();
    }
    port["target"] = target.into();
    if let Some(published) = published {
        port["published"] = published.into();
    }
    port["protocol"] = protocol.into();
    port
}

/// What stands before the target: `PUBLISHED`, `IP:PUBLISHED`, `[IPv6]:PUBLISHED`, `IP:`.
fn host_and_published(text: &str) -> Result<(Option<&str>, Option<Range>), String> {
    let (host, published) = match text.rsplit_once(':') {
        Some((host, published)) => (Some(host), published),
        None => (None, text),
    };
    let host = host.map(|host| host.trim_start_matches('[').trim_end_matches(']'));
    if host.is_some_and(|host| host.parse::<std::net::IpAddr>().is_err()) {
        return Err("the host of a port is an IP address".to_string());
    }
    let published = (!published.is_empty()).then(|| range(published)).transpose()?;
    Ok((host, published))
}

fn range(text: &str) -> Result<Range, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(FORM.to_string()),
    }
}

/// Each port of the container with the one of the host. One port may be given a range to choose from.
fn spread(target: Range, published: Option<Range>) -> Result<Vec<(u16, Option<String>)>, String> {
    let length = |range: Range| range.1 - range.0;
    match published {
        None => Ok((target.0..=target.1).map(|port| (port, None)).collect()),
        Some(published) if length(published) == length(target) => Ok((target.0..=target.1)
            .zip(published.0..=published.1)
            .map(|(target, published)| (target, Some(published.to_string())))
            .collect()),
        Some((first, last)) if length(target) == 0 => Ok(vec![(target.0, Some(format!("{first}-{last}")))]),
        Some(_) => Err("the two ranges of a port are not of one length".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Json) {
        let found = short(text).map(Json::from).unwrap_or_else(Json::from);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn forms() {
        let port = |target: u16| json!([{ "mode": "ingress", "target": target, "protocol": "tcp" }]);
        check("80", port(80));
        check(
            "8080:80",
            json!([{ "mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp" }]),
        );
        check(
            "127.0.0.1:9000-9001:90-91/udp",
            json!([
                { "mode": "ingress", "host_ip": "127.0.0.1", "target": 90, "published": "9000", "protocol": "udp" },
                { "mode": "ingress", "host_ip": "127.0.0.1", "target": 91, "published": "9001", "protocol": "udp" },
            ]),
        );
        check(
            "[::1]:1-3:80",
            json!([{ "mode": "ingress", "host_ip": "::1", "target": 80, "published": "1-3", "protocol": "tcp" }]),
        );
        check(
            "127.0.0.1::80",
            json!([{ "mode": "ingress", "host_ip": "127.0.0.1", "target": 80, "protocol": "tcp" }]),
        );
    }

    #[test]
    fn mistakes() {
        check("0", FORM.into());
        check("80:x", FORM.into());
        check("65536", FORM.into());
        check("90-80", FORM.into());
        check("1-2:1-3", "the two ranges of a port are not of one length".into());
        check("80/icmp", "the protocol of a port is tcp, udp or sctp".into());
        check("here:80:80", "the host of a port is an IP address".into());
    }
}
