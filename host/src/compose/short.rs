//! Short forms that are one text, to the maps that they stand for. Ports and volumes have files of their own.

use serde_json::json;

pub(crate) type Json = serde_json::Value;

pub(super) fn build(text: &str) -> Result<Vec<Json>, String> {
    Ok(vec![json!({ "context": text })])
}

pub(super) fn include(text: &str) -> Result<Vec<Json>, String> {
    Ok(vec![json!({ "path": [text] })])
}

pub(super) fn env_file(text: &str) -> Result<Vec<Json>, String> {
    Ok(vec![json!({ "path": text })])
}

pub(super) fn extends(text: &str) -> Result<Vec<Json>, String> {
    Ok(vec![json!({ "service": text })])
}

/// A secret or a config under its own name.
pub(super) fn file_grant(text: &str) -> Result<Vec<Json>, String> {
    Ok(vec![json!({ "source": text })])
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`; a name of the Container Device Interface (`vendor.com/class=name`) has no parts.
pub(super) fn device(text: &str) -> Result<Vec<Json>, String> {
    if !text.starts_with('/') && text.contains('=') {
        return Ok(vec![json!({ "source": text, "target": text })]);
    }
    let parts: Vec<&str> = text.split(':').collect();
    let device = |source, target, permissions| {
        Ok(vec![
            json!({ "source": source, "target": target, "permissions": permissions }),
        ])
    };
    match parts.as_slice() {
        [source] => device(*source, *source, "rwm"),
        [source, permissions]
            if !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c)) =>
        {
            device(*source, *source, *permissions)
        }
        [source, target] => device(*source, *target, "rwm"),
        [source, target, permissions] => device(*source, *target, *permissions),
        _ => Err("a device is HOST[:CONTAINER[:PERMISSIONS]]".to_string()),
    }
}
