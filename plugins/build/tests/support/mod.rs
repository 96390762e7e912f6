//! A workshop in memory, and a reader of what it was given.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;

use windlass_guest::Error;
use windlass_guest::artifacts::Artifact;
use windlass_plugin_build::stage::{ArtifactWriter, Workshop};

/// Keeps artifacts in memory; `room` bytes fit.
pub(crate) struct Memory {
    pub(crate) published: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    pub(crate) room: usize,
    pub(crate) cancelled: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            published: Rc::default(),
            room: usize::MAX,
            cancelled: false,
        }
    }
}

struct Writer {
    name: String,
    bytes: Vec<u8>,
    room: usize,
    published: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
}

impl Workshop for Memory {
    fn create(&mut self, name: &str, media_type: &str) -> Result<Box<dyn ArtifactWriter>, Error> {
        assert_eq!(media_type, "application/vnd.oci.image.layout.v1.tar");
        let published = Rc::clone(&self.published);
        Ok(Box::new(Writer {
            name: name.to_owned(),
            bytes: Vec::new(),
            room: self.room,
            published,
        }))
    }

    fn info(&mut self, _message: &str) {}

    fn is_cancelled(&mut self) -> bool {
        self.cancelled
    }
}

impl ArtifactWriter for Writer {
    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        assert!(data.len() <= 1 << 20, "one call takes 1 MiB at most");
        if self.bytes.len() + data.len() > self.room {
            return Err(Error::new("storage.failed", "no space left on device").retryable());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Artifact, Error> {
        let artifact = Artifact {
            artifact: format!("run/build/{}", self.name),
            digest: "sha256:of-the-archive".to_owned(),
            size: self.bytes.len() as u64,
            media_type: "application/vnd.oci.image.layout.v1.tar".to_owned(),
        };
        self.published.borrow_mut().insert(self.name, self.bytes);
        Ok(artifact)
    }
}

/// The members of a tar file, by name; directories end with `/`.
pub(crate) fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let mut members = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        assert!(
            members.insert(name.clone(), bytes).is_none(),
            "{name} is there twice"
        );
    }
    members
}

/// A tar file of these members.
pub(crate) fn pack(members: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members.iter().filter(|(name, _)| !name.ends_with('/')) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}
