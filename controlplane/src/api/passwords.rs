//! Passwords: hashed with argon2id, off the runtime's threads, a few at a time.
//!
//! Checking a user that does not exist costs what checking one that does costs. Called by `auth`, `users` and `bootstrap`.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use super::error::Error;
use crate::domain::{Violation, ids};

const AT_ONCE: usize = 2;
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longer ones would only cost time.
const MOST_BYTES: usize = 1024;
const FEWEST_CHARS: usize = 12;

/// At most a few hashes at a time: each takes 19 MiB and some 20 ms of a core.
#[derive(Debug, Clone)]
pub struct Passwords(Arc<Semaphore>);

impl Default for Passwords {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// What an unknown user's password is checked against.
static NOBODY: LazyLock<Result<String, argon2::password_hash::Error>> = LazyLock::new(|| hash_now(&ids::secret()));

impl Passwords {
    /// The PHC string to store.
    pub async fn hash(&self, password: &SecretString) -> Result<String, Error> {
        let password = password.clone();
        let hashed = self.run(move || hash_now(password.expose_secret())).await?;
        hashed.map_err(|cause| Error::internal(&std::io::Error::other(cause.to_string())))
    }

    /// Whether the password fits the hash; none: there is no such user, which takes as long to find out.
    pub async fn check(&self, password: &SecretString, hash: Option<String>) -> Result<bool, Error> {
        let password = password.clone();
        self.run(move || {
            if password.expose_secret().len() > MOST_BYTES {
                return false;
            }
            let known = hash.is_some();
            let Some(hash) = hash.or_else(|| NOBODY.as_ref().ok().cloned()) else { return false };
            Argon2::default().verify_password(password.expose_secret().as_bytes(), hash.as_str()).is_ok() && known
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let permit = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.0).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(Error::Busy) };
        let done = tokio::task::spawn_blocking(move || {
            let _held_until_done = permit;
            work()
        });
        done.await.map_err(|cause| Error::internal(&cause))
    }
}

/// What is wrong with a new password.
pub fn judge(field: &str, password: &str) -> Option<Violation> {
    let fits = password.chars().count() >= FEWEST_CHARS && password.len() <= MOST_BYTES;
    (!fits).then(|| Violation::new(field, format!("expected {FEWEST_CHARS} characters or more, and at most {MOST_BYTES} bytes")))
}

/// A password that nobody has to remember: 26 characters, 130 bits.
pub fn make_up() -> SecretString {
    SecretString::from(ids::base32(ids::random::<16>().as_ref()))
}

fn hash_now(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}
