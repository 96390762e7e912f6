//! Files that `openssl enc -aes-256-cbc -salt` wrote: from bytes and a passphrase to the text.
//!
//! The format has a magic word and eight bytes of salt, and says neither how the key was derived nor whether it is the right
//! one: the first is declared by the pipeline, the second shows in the padding and in the text being UTF-8.

use super::Bytes;
use crate::pipeline::model::Kdf;
use aes::Aes256;
use cbc::{
    Decryptor,
    cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7},
};
use md5::Md5;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"Salted__";
const SALT: usize = 8;
const KEY: usize = 32;
const VECTOR: usize = 16;
/// What `openssl enc -pbkdf2` does unless told otherwise by `-iter`.
const PBKDF2_ROUNDS: u32 = 10_000;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum DecryptError {
    #[error("it is cut off: an encrypted file holds a salt and whole blocks of 16 bytes")]
    CutOff,
    #[error("it cannot be decrypted with this key")]
    WrongKey,
}

pub(super) fn is_encrypted(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

/// The text in `content`, for which [`is_encrypted`] is true.
///
/// # Errors
/// The file is cut off, or the passphrase or the derivation is not the one it was written with.
pub(super) fn decrypt(content: &[u8], passphrase: &[u8], kdf: Kdf) -> Result<Bytes, DecryptError> {
    let body = content.get(MAGIC.len()..).ok_or(DecryptError::CutOff)?;
    let (salt, blocks) = body.split_at_checked(SALT).ok_or(DecryptError::CutOff)?;
    if blocks.is_empty() || !blocks.len().is_multiple_of(VECTOR) {
        return Err(DecryptError::CutOff);
    }
    let derived = derive(passphrase, salt, kdf);
    let (key, vector) = derived.split_at(KEY);
    let cipher = Decryptor::<Aes256>::new_from_slices(key, vector).map_err(|_| DecryptError::WrongKey)?;
    let mut buffer = Zeroizing::new(blocks.to_vec());
    let length = cipher
        .decrypt_padded::<Pkcs7>(&mut buffer)
        .map_err(|_| DecryptError::WrongKey)?
        .len();
    buffer.truncate(length);
    match std::str::from_utf8(&buffer) {
        Ok(_) => Ok(buffer),
        Err(_) => Err(DecryptError::WrongKey),
    }
}

fn derive(passphrase: &[u8], salt: &[u8], kdf: Kdf) -> Zeroizing<[u8; KEY + VECTOR]> {
    let mut derived = Zeroizing::new([0; KEY + VECTOR]);
    match kdf {
        Kdf::EvpSha256 => bytes_to_key::<Sha256>(passphrase, salt, &mut derived[..]),
        Kdf::EvpMd5 => bytes_to_key::<Md5>(passphrase, salt, &mut derived[..]),
        Kdf::Pbkdf2 => pbkdf2::pbkdf2_hmac::<Sha256>(passphrase, salt, PBKDF2_ROUNDS, &mut derived[..]),
    }
    derived
}

/// `EVP_BytesToKey` with one round: each block is the digest of the block before, the passphrase and the salt.
fn bytes_to_key<D: Digest>(passphrase: &[u8], salt: &[u8], derived: &mut [u8]) {
    let mut block = Zeroizing::new(Vec::new());
    let size = <D as Digest>::output_size();
    for part in derived.chunks_mut(size) {
        let mut digest = D::new();
        digest.update(&block[..]);
        digest.update(passphrase);
        digest.update(salt);
        *block = digest.finalize().to_vec();
        part.copy_from_slice(&block[..part.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    const TEXT: &[u8] = "PASSWORD=grün\nOTHER=x\n".as_bytes();

    /// What the real program makes of [`TEXT`].
    fn encrypted(arguments: &[&str]) -> Vec<u8> {
        let mut child = Command::new("openssl")
            .args(["enc", "-aes-256-cbc", "-salt", "-k", "correct horse"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(TEXT).expect("written");
        drop(input);
        child.wait_with_output().expect("ends").stdout
    }

    #[track_caller]
    fn check(arguments: &[&str], kdf: Kdf) {
        let content = encrypted(arguments);
        assert!(is_encrypted(&content));
        let text = decrypt(&content, b"correct horse", kdf).expect("decrypts");
        assert!(*text == TEXT);
        for other in [Kdf::EvpSha256, Kdf::EvpMd5, Kdf::Pbkdf2] {
            if other != kdf {
                let wrong = decrypt(&content, b"correct horse", other);
                assert_eq!(wrong.err(), Some(DecryptError::WrongKey), "{other:?}");
            }
        }
        let wrong = decrypt(&content, b"battery staple", kdf);
        assert_eq!(wrong.err(), Some(DecryptError::WrongKey));
    }

    #[test]
    fn files_of_the_real_openssl() {
        check(&[], Kdf::EvpSha256);
        check(&["-md", "sha256"], Kdf::EvpSha256);
        check(&["-md", "md5"], Kdf::EvpMd5);
        check(&["-pbkdf2"], Kdf::Pbkdf2);
    }

    #[test]
    fn cut_off_files() {
        let content = encrypted(&[]);
        for length in [8, 12, 16, content.len() - 1] {
            let cut = decrypt(&content[..length], b"correct horse", Kdf::EvpSha256);
            assert_eq!(cut.err(), Some(DecryptError::CutOff), "{length}");
        }
    }
}
