//! How a bucket is reached, as a plugin says it: an endpoint that is granted, and keys that the plugin does not see.

use super::{Caller, bucket::Bucket, not_options, transport::Transport};
use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    pattern::{Host, Pattern},
    service::{
        egress::{Destination, Trust, granted},
        secret::{Place, Secrets, has_placeholder},
    },
};
use async_trait::async_trait;
use object_store::{CredentialProvider, aws::AwsCredential};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::{fmt, sync::Arc};
use zeroize::{Zeroize, Zeroizing};

const REGION: &str = "us-east-1";

/// Texts may hold placeholders.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Access {
    pub(super) endpoint: Option<String>,
    region: Option<String>,
    virtual_host: bool,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
}

/// Keys to sign with, overwritten when they are dropped.
pub(crate) struct Keys(Arc<AwsCredential>);

impl Access {
    /// # Errors
    /// `object.options`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let text = if text.is_empty() { "{}" } else { text };
        let access: Self = serde_json::from_str(text).map_err(|_| {
            not_options(
                "`access` takes `endpoint`, `region`, `virtual-host`, `access-key-id`, `secret-access-key` and `session-token`",
            )
        })?;
        if access.access_key_id.is_some() != access.secret_access_key.is_some() {
            return Err(not_options("`access-key-id` and `secret-access-key` go together"));
        }
        if access.virtual_host && access.endpoint.is_none() {
            return Err(not_options(
                "`virtual-host` is about an `endpoint`, and there is none",
            ));
        }
        Ok(access)
    }

    /// # Errors
    /// `grant.denied` for the endpoint; `object.options`, `object.credentials`; those of placeholders.
    pub(super) fn open(&self, caller: &Caller, bucket: &str) -> Result<Bucket, Failure> {
        let region = self.region.as_deref().unwrap_or(REGION);
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || region.len() > 40 || !region.bytes().all(is_plain) {
            return Err(not_options(
                "a region has lower-case letters, digits and `-` only",
            ));
        }
        let (origin, destination) = self.endpoint(caller, region)?;
        let keys = self.keys(caller, &destination)?;
        let transport = Transport::new(caller.connector.clone(), origin, destination);
        Bucket::new(
            bucket,
            region,
            self.virtual_host,
            keys,
            transport,
            caller.patience.clone(),
        )
    }

    /// The server, in the form of a grant of `http`.
    fn endpoint(&self, caller: &Caller, region: &str) -> Result<(String, Destination), Failure> {
        let of_aws = format!("https://s3.{region}.amazonaws.com");
        let text = self.endpoint.as_deref().unwrap_or(&of_aws);
        let pattern = Pattern::parse(Capability::Http, text.trim_end_matches('/'))
            .map_err(|error| not_options(&format!("the endpoint: {}", error.problem)))?;
        let Pattern::Origin {
            host: Host::Exact(host),
            port,
            ..
        } = &pattern
        else {
            return Err(not_options("the endpoint is one host"));
        };
        // The host of AWS comes from here; any other is the plugin's word, and needs a grant of its own.
        let trust = match self.endpoint {
            Some(_) => granted(&caller.granter, Capability::Http, &pattern)?,
            None => Trust::Named,
        };
        let destination = Destination {
            host: host.clone(),
            port: *port,
            trust,
        };
        Ok((pattern.to_string(), destination))
    }

    fn keys(&self, caller: &Caller, to: &Destination) -> Result<Option<Keys>, Failure> {
        let (Some(id), Some(secret)) = (&self.access_key_id, &self.secret_access_key) else {
            return Ok(None);
        };
        let place = Place::Header {
            host: &to.host,
            port: to.port,
        };
        let swap = |name: &str, text: &str| {
            let text = match &caller.secrets {
                Some(secrets) => secrets.swap(&caller.granter, text, place)?,
                None => Zeroizing::new(text.to_string()),
            };
            checked(name, text)
        };
        let token = self.session_token.as_deref();
        let token = token.map(|text| swap("session-token", text)).transpose()?;
        Ok(Some(Keys::new(
            &swap("access-key-id", id)?,
            &swap("secret-access-key", secret)?,
            token.as_ref().map(|token| token.as_str()),
        )))
    }

    /// For the journal: secrets by name. A key that somebody wrote down in plain text is left out.
    pub(super) fn described(&self, secrets: Option<&Secrets>) -> Json {
        let describe = |text: &Option<String>| {
            let text = text.as_deref().filter(|text| has_placeholder(text))?;
            secrets.map(|secrets| secrets.describe(text))
        };
        json!({
            "endpoint": self.endpoint, "region": self.region, "virtual-host": self.virtual_host,
            "access-key-id": describe(&self.access_key_id), "secret-access-key": describe(&self.secret_access_key),
            "session-token": describe(&self.session_token), "signed": self.access_key_id.is_some(),
        })
    }

    /// What [`Access::described`] wrote, with placeholders of this attempt; `None` where the keys cannot be found again.
    pub(super) fn again(described: &Json, secrets: &Secrets) -> Option<Self> {
        let text = |key: &str| described[key].as_str().map(String::from);
        let secret = |key: &str| match described[key].as_str() {
            Some(text) => secrets.placeholder_of(text).map(Some),
            None => Some(None),
        };
        let access = Self {
            endpoint: text("endpoint"),
            region: text("region"),
            virtual_host: described["virtual-host"] == true,
            access_key_id: secret("access-key-id")?,
            secret_access_key: secret("secret-access-key")?,
            session_token: secret("session-token")?,
        };
        let has_keys = access.access_key_id.is_some() && access.secret_access_key.is_some();
        (has_keys || described["signed"] == false).then_some(access)
    }
}

/// What the signing library would panic at is refused here.
fn checked(name: &str, text: Zeroizing<String>) -> Result<Zeroizing<String>, Failure> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    let message = format!("`{name}` is empty or has a character that no header can hold");
    Err(Failure::new(Turn::Operator, "object.credentials", message)
        .help("a newline at its end is the usual cause: store the secret without it"))
}

impl Keys {
    pub(crate) fn new(id: &str, secret: &str, token: Option<&str>) -> Self {
        Self(Arc::new(AwsCredential {
            key_id: id.into(),
            secret_key: secret.into(),
            token: token.map(String::from),
        }))
    }

    pub(crate) fn credential(&self) -> &AwsCredential {
        &self.0
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Whoever signs at this moment has a clone: then it is not the last.
        if let Some(credential) = Arc::get_mut(&mut self.0) {
            credential.key_id.zeroize();
            credential.secret_key.zeroize();
            credential.token.zeroize();
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys")
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.0.clone())
    }
}
