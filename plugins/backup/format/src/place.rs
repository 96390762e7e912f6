//! Where backups lie: a directory of this machine, or a prefix of a bucket. A file of a backup has a place too.

use std::fmt;

use windlass_guest::Error;
use windlass_guest::objects::Access;

use crate::host::{Sink, Source};
use crate::location::guest_path;

/// A directory or a file in one; a prefix or an object below one.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A path as the sandbox shows it.
    Disk(String),
    Bucket {
        /// `s3://<bucket>/<prefix>`, without a `/` at its end.
        url: String,
        access: Access,
    },
}

impl Place {
    /// What `to` or `from` names; `s3` says how buckets are reached.
    ///
    /// # Errors
    /// `config.invalid`.
    pub fn new(text: &str, s3: Option<&Access>) -> Result<Self, Error> {
        if !text.starts_with("s3://") {
            return Ok(Self::Disk(guest_path(text)));
        }
        match s3 {
            Some(access) => Ok(Self::Bucket {
                url: text.trim_end_matches('/').to_owned(),
                access: access.clone(),
            }),
            None => Err(Error::config(format!(
                "`{text}` is in a bucket, and `s3` does not say how it is reached"
            ))
            .help("add `s3: { endpoint, region, access-key-id, secret-access-key }`; without `endpoint` it is AWS")),
        }
    }

    /// A place in this one.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        match self {
            Self::Disk(path) => Self::Disk(format!("{path}/{name}")),
            Self::Bucket { url, access } => Self::Bucket {
                url: format!("{url}/{name}"),
                access: access.clone(),
            },
        }
    }

    pub fn is_on_disk(&self) -> bool {
        matches!(self, Self::Disk(_))
    }

    /// The path or URL.
    pub fn shown(&self) -> &str {
        match self {
            Self::Disk(path) => path,
            Self::Bucket { url, .. } => url,
        }
    }

    /// As a file that is read.
    pub fn source(&self) -> Source<'_> {
        match self {
            Self::Disk(path) => Source::File(path),
            Self::Bucket { url, access } => Source::Object { url, access },
        }
    }

    /// As a file that is written.
    pub fn sink(&self) -> Sink<'_> {
        match self {
            Self::Disk(path) => Sink::File(path),
            Self::Bucket { url, access } => Sink::Object { url, access },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.shown())
    }
}

/// Without the keys.
impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_needs_a_way_to_it() {
        let access = Access::default();
        let place = Place::new("s3://backups/team/", Some(&access)).unwrap();
        assert_eq!(place.within("a").shown(), "s3://backups/team/a");
        assert!(!place.is_on_disk());
        let error = Place::new("s3://backups/team", None).expect_err("nothing says how");
        assert_eq!(error.code, "config.invalid");
        let place = Place::new("./backups/", None).unwrap();
        assert_eq!(place, Place::Disk("/workspace/backups".into()));
    }
}
