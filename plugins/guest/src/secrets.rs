//! Secrets as handles: passed on without being read, or, with their own grants, read and put.

use crate::Error;
use crate::bindings::secrets::{reveal, sink, store};
use std::time::Duration;

/// A secret that can be handed on without ever being read.
pub struct Secret(store::Secret);

/// A handle, by the secret's name in the pipeline file or by a placeholder from the configuration.
pub fn get(name_or_placeholder: &str) -> Result<Secret, Error> {
    Ok(Secret(store::get(name_or_placeholder)?))
}

impl Secret {
    /// Its name in the pipeline file.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// The text that the host swaps for the value where the value may go.
    pub fn placeholder(&self) -> String {
        self.0.placeholder()
    }

    /// One field of a secret that has fields.
    pub fn field(&self, name: &str) -> Result<Secret, Error> {
        Ok(Secret(store::field(&self.0, name)?))
    }

    /// The bytes. Needs `secrets.reveal`.
    pub fn reveal(&self) -> Result<Vec<u8>, Error> {
        Ok(reveal::reveal(&self.0)?)
    }
}

/// Puts one value into the run's store. Needs `secrets.put`.
pub fn put(name: &str, value: &[u8], time_to_live: Option<Duration>) -> Result<(), Error> {
    Ok(sink::put(name, value, time_to_live.map(|time| time.as_secs()))?)
}

/// Puts a secret with fields. Needs `secrets.put`.
pub fn put_fields(
    name: &str,
    fields: &[(String, Vec<u8>)],
    time_to_live: Option<Duration>,
) -> Result<(), Error> {
    Ok(sink::put_fields(
        name,
        fields,
        time_to_live.map(|time| time.as_secs()),
    )?)
}

/// Puts a secret this stage may use under another name, unread. Needs `secrets.put`.
pub fn put_handle(name: &str, secret: &Secret) -> Result<(), Error> {
    Ok(sink::put_handle(name, &secret.0)?)
}
