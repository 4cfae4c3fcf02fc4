//! Seals what a node keeps on disk with a key of its own, bound to the file's name: damage, a swapped file or another node's are noticed.
//! Owns the key and the form of a sealed file. Never says what is in one: [`super::last_good`] and [`super::store`] do.

use std::io;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::node::identity::write_private;

/// The key's file in the state directory: 32 bytes, mode 0600.
const KEY_FILE: &str = "disk.key";
/// First byte of every sealed file. Then come the nonce, the ciphertext and its tag.
const FORMAT: u8 = 1;
/// Where the ciphertext begins.
const HEAD: usize = 1 + NONCE_LEN;

/// AES-256-GCM with a key that never leaves the node.
pub struct Vault {
    key: RandomizedNonceKey,
}

/// Why a sealed file is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("it is not a sealed file of format {FORMAT}")]
    Format,
    #[error("it does not open with this node's key: it is damaged, was renamed, or is another node's")]
    Sealed,
}

impl Vault {
    /// Reads the key, or makes one where there is none. A damaged key is replaced: what it sealed is lost, as told in the log.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(KEY_FILE);
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => match RandomizedNonceKey::new(&AES_256_GCM, &bytes) {
                Ok(key) => return Ok(Self { key }),
                Err(_) => tracing::error!(
                    path = %path.display(),
                    "{} is not a key of 32 bytes; a new one is made, and what this node kept on disk cannot be read any more",
                    path.display()
                ),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(io::Error::other)?;
        write_private(&path, bytes.as_ref())?;
        Ok(Self { key: RandomizedNonceKey::new(&AES_256_GCM, bytes.as_ref()).map_err(io::Error::other)? })
    }

    /// Replaces a file; returns when it is on disk. `encode` appends the content to what it is given, so that it is copied once.
    pub(super) fn write(&self, path: &Path, encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut file = vec![0; HEAD];
        encode(&mut file);
        let sealed = self.key.seal_in_place_separate_tag(bound_to(path), &mut file[HEAD..]);
        let (nonce, tag) = sealed.map_err(io::Error::other)?;
        file[0] = FORMAT;
        file[1..HEAD].copy_from_slice(nonce.as_ref());
        file.extend_from_slice(tag.as_ref());
        write_private(path, &file)
    }

    /// The content of what lay in the file at `path`.
    pub(super) fn open_file(&self, path: &Path, mut file: Vec<u8>) -> Result<Bytes, Broken> {
        let Some((&[FORMAT, ref nonce @ ..], sealed)) =
            file.split_first_chunk_mut::<HEAD>().map(|(head, sealed)| (&*head, sealed))
        else {
            return Err(Broken::Format);
        };
        let nonce = Nonce::try_assume_unique_for_key(nonce).or(Err(Broken::Format))?;
        // aws-lc says nothing more than "unspecified".
        let length = self.key.open_in_place(nonce, bound_to(path), sealed).or(Err(Broken::Sealed))?.len();
        Ok(Bytes::from(file).slice(HEAD..HEAD + length))
    }
}

/// A file under another name does not open.
fn bound_to(path: &Path) -> Aad<&[u8]> {
    Aad::from(path.file_name().map_or(&[][..], |name| name.as_encoded_bytes()))
}
