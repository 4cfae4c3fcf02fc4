//! Refresh tokens: `mcpgwr_<session>_<generation>_<secret>`.
//!
//! The secret is 16 random bytes and a code over session, generation and them, so that an old token can be told from an invented
//! one without keeping it: only who held a token can end its session by using it twice. Called by `auth`.

use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    domain::ids,
    keys::{self, Custody},
};

const PREFIX: &str = "mcpgwr";
const PURPOSE: &str = "refresh token";
const CODE_LEN: usize = 16;

/// A token that this installation made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented {
    pub session: Uuid,
    pub generation: i64,
}

/// A new token of a session.
pub fn make(custody: &Custody, session: Uuid, generation: i64) -> Result<Zeroizing<String>, keys::Error> {
    let random = ids::random::<16>();
    let code = custody.mac(PURPOSE, &message(session, generation, random.as_ref()))?;
    let secret = Zeroizing::new([random.as_slice(), &code.as_ref()[..CODE_LEN]].concat());
    Ok(Zeroizing::new(format!("{PREFIX}_{}_{generation}_{}", session.simple(), ids::base32(&secret))))
}

/// What a token says, if it was made here.
pub fn read(custody: &Custody, token: &str) -> Result<Option<Presented>, keys::Error> {
    let mut parts = token.split('_');
    let (Some(PREFIX), Some(session), Some(generation), Some(secret), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let (Ok(session), Ok(generation), Some(secret)) =
        (Uuid::try_parse(session), generation.parse::<i64>(), ids::unbase32(secret).map(Zeroizing::new))
    else {
        return Ok(None);
    };
    let Some((random, code)) = secret.split_at_checked(16).filter(|(_, code)| code.len() == CODE_LEN) else { return Ok(None) };
    let made_here = custody.mac_holds(PURPOSE, &message(session, generation, random), code)?;
    Ok(made_here.then_some(Presented { session, generation }))
}

fn message(session: Uuid, generation: i64, random: &[u8]) -> Vec<u8> {
    [session.as_bytes().as_slice(), &generation.to_be_bytes(), random].concat()
}
