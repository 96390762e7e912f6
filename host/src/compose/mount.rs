//! `[SOURCE:]TARGET[:OPTIONS]` to a volume of a service.

use super::short::Json;
use serde_json::json;

pub(super) fn short(text: &str) -> Result<Vec<Json>, String> {
    let parts = split(text);
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        // `/data:ro` is an anonymous volume with an option: nothing can be mounted at a relative place.
        [target, options] if is_options(options) => (None, *target, *options),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err("a volume is [SOURCE:]TARGET[:OPTIONS]".to_string()),
    };
    if target.is_empty() || source == Some("") {
        return Err("a volume is [SOURCE:]TARGET[:OPTIONS], and neither side may be empty".to_string());
    }
    let is_bind = source.is_some_and(|source| is_path(source) || has_drive(text));
    let mut mount = json!({ "type": if is_bind { "bind" } else { "volume" } });
    if let Some(source) = source {
        mount["source"] = source.into();
    }
    mount["target"] = target.into();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply(option, &mut mount)?;
    }
    if is_bind {
        // What the short form has always done, and the long form does not do unless it is asked to.
        mount["bind"]["create_host_path"] = true.into();
    }
    Ok(vec![mount])
}

/// Whether a source is a place on the host and not the name of a volume.
fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~', '\\'])
}

/// `C:\data` has a colon that separates nothing. `c:/data` alone is a volume called `c`: only before another place is it a drive.
fn has_drive(text: &str) -> bool {
    match text.as_bytes() {
        [letter, b':', b'\\', ..] => letter.is_ascii_alphabetic(),
        [letter, b':', b'/', ..] => letter.is_ascii_alphabetic() && text[2..].contains(":/"),
        _ => false,
    }
}

/// Whether a source is a place on a machine with drives: nothing of here is laid before it.
pub(super) fn is_drive(source: &str) -> bool {
    matches!(source.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic())
}

fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let drive = if parts.is_empty() && has_drive(rest) { 2 } else { 0 };
        match rest[drive..].find(':') {
            Some(colon) => {
                parts.push(&rest[..drive + colon]);
                rest = &rest[drive + colon + 1..];
            }
            None => {
                parts.push(rest);
                return parts;
            }
        }
    }
}

fn is_options(text: &str) -> bool {
    !text.is_empty()
        && text
            .split(',')
            .all(|option| apply(option, &mut json!({ "type": "volume" })).is_ok())
}

fn apply(option: &str, mount: &mut Json) -> Result<(), String> {
    match option {
        "ro" => mount["read_only"] = true.into(),
        "rw" => {}
        "z" | "Z" => mount["bind"]["selinux"] = option.into(),
        "nocopy" => mount["volume"]["nocopy"] = true.into(),
        "cached" | "delegated" | "consistent" => mount["consistency"] = option.into(),
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
            mount["bind"]["propagation"] = option.into();
        }
        _ => {
            return Err(
                "the options of a volume are ro, rw, z, Z, nocopy, cached, delegated, consistent and \
                 [r]private, [r]shared, [r]slave"
                    .to_string(),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Json) {
        assert_eq!(short(text), Ok(vec![expected]), "{text}");
    }

    #[test]
    fn forms() {
        check("/data", json!({ "type": "volume", "target": "/data" }));
        check(
            "data:/data",
            json!({ "type": "volume", "source": "data", "target": "/data" }),
        );
        check(
            "./a:/b:ro,z",
            json!({ "type": "bind", "source": "./a", "target": "/b", "read_only": true,
                    "bind": { "selinux": "z", "create_host_path": true } }),
        );
        check(
            "data:/d:nocopy",
            json!({ "type": "volume", "source": "data", "target": "/d", "volume": { "nocopy": true } }),
        );
        check(
            "/a:/b:rslave,cached",
            json!({ "type": "bind", "source": "/a", "target": "/b", "consistency": "cached",
                    "bind": { "propagation": "rslave", "create_host_path": true } }),
        );
        check(
            "/data:ro",
            json!({ "type": "volume", "target": "/data", "read_only": true }),
        );
        check(
            "v:/v:ro",
            json!({ "type": "volume", "source": "v", "target": "/v", "read_only": true }),
        );
        check(
            "C:/x:/y",
            json!({ "type": "bind", "source": "C:/x", "target": "/y", "bind": { "create_host_path": true } }),
        );
        check(
            "C:\\x:/y",
            json!({ "type": "bind", "source": "C:\\x", "target": "/y", "bind": { "create_host_path": true } }),
        );
    }

    #[test]
    fn mistakes() {
        for text in ["a:b:c:d", ":/x", "a:", "./a:/b:quick"] {
            assert!(short(text).is_err(), "{text}");
        }
    }
}
