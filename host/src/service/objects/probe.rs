//! An effect on objects that a crash has cut off → whether it happened: the object says itself which effect has written it.

use super::{Access, Caller, bucket::Label};
use crate::{failure::Failure, service::flow::probe::Became};
use serde_json::Value as Json;

/// A copy to an object. Removes what is left of one that was not put together.
///
/// # Errors
/// The server cannot be reached, or refuses; the keys are not there.
pub async fn look(caller: &Caller, key: &str, arguments: &Json) -> Result<Became, Failure> {
    let (to, noted) = (&arguments["to"], &arguments["aside"]);
    let (Some(url), Some(digest), Some(secrets)) =
        (to["object"].as_str(), noted["digest"].as_str(), &caller.secrets)
    else {
        return Ok(Became::Unknown);
    };
    let Some(access) = Access::again(&to["access"], secrets) else {
        return Ok(Became::Unknown);
    };
    let access = serde_json::to_string(&access).expect("texts become JSON");
    let place = caller.object(url, &access)?;
    let label = Label {
        digest: digest.into(),
        key: key.into(),
    };
    if place.known().await?.is_some_and(|known| known.is(&label)) {
        return Ok(Became::Done(noted["copied"].clone()));
    }
    if let Some(upload) = noted["upload"].as_str() {
        place.bucket.abort(&place.path, &place.url, upload).await?;
    }
    Ok(Became::NotDone)
}
