//! Session tokens: what a legacy client holds as `Mcp-Session-Id`, and any node of the pool can open.
//! Owns the token's format and its bond to principal, organisation and server; keeps no state and reads no clock.
//! Sealed by the relay when a server answers `initialize`, opened by the pipeline for every later request.
//!
//! Two kinds: a sealed session is all in its token, and any node serves it; an owned one lives in the node that the token names.
//! A third kind is no session: what a modern client brings back as `requestState` when it answers what a server asked in a call.
//!
//! The text is `<key id>.<base64url(nonce, AES-256-GCM(plaintext), tag)>`: visible ASCII, as the protocol demands.
//! The additional data is a version label and the key id. The bond is a digest inside the plaintext, so that the
//! answer for somebody else's session can be told apart from a forged one in the records; the client gets 404 for both.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_gateway::snapshot::SessionKey;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::transport::Version;

#[cfg(test)]
mod tests;

/// The first byte of a plaintext that is a whole session.
const SEALED: u8 = 1;
/// The first byte of a plaintext that names an owned session.
const OWNED: u8 = 2;
/// The first byte of a plaintext that names a call which waits for its client.
const PARKED: u8 = 3;
/// The longest upstream session id that fits; servers in the wild use 32 to 64 bytes.
const MAX_UPSTREAM: usize = 1024;
/// The longest token worth decoding.
const MAX_TEXT: usize = 4096;
/// Format, bond, endpoint, version, two instants, and whether there is an upstream id.
const FIXED: usize = 1 + 32 + 2 + 1 + 8 + 8 + 1;
/// The longest id of a node that fits; they are UUIDs.
const MAX_NODE: usize = 64;

/// Whose session it is. Another credential kind of the same subject is another holder: a session opened with an API key
/// does not continue with a token.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The principal's subject.
    pub subject: &'a str,
    /// How the principal proved who it is, such as `jwt`, `api_key` or `anonymous`.
    pub credential_kind: &'a str,
    /// The organisation's id.
    pub org_id: &'a str,
    /// The server's id.
    pub server_id: &'a str,
}

/// What a token carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// All there is to know; any node serves it.
    Sealed(Session),
    /// Where the session lives.
    Owned(Owned),
    /// What a retry continues.
    Parked(Parked),
}

/// Names a session that lives in one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The session's id in that node.
    pub id: Uuid,
    /// The node's id.
    pub node: Box<str>,
    /// Seconds since the Unix epoch: from here on the token is void.
    pub expires_at: u64,
}

/// What a request of a modern client's continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Where the call waits; none: nowhere, and the request is sent once more.
    pub call: Option<Waiting>,
    /// How often the client was asked about it before.
    pub round: u32,
    /// Of what was asked for: the retry has to ask for the same.
    pub digest: [u8; 32],
    /// Seconds since the Unix epoch: from here on the token is void.
    pub expires_at: u64,
}

/// A call that waits for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The node's id.
    pub node: Box<str>,
    /// The session's id in that node.
    pub session: Uuid,
    /// The call's number in that session.
    pub number: u64,
}

/// A sealed session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session id that the server gave, if it gave one; visible ASCII.
    pub upstream_id: Option<Box<str>>,
    /// Which of the server's endpoints holds the session.
    pub endpoint: u16,
    /// The version that `initialize` negotiated.
    pub version: Version,
    /// Seconds since the Unix epoch.
    pub issued_at: u64,
    /// Seconds since the Unix epoch: from here on the token is void.
    pub expires_at: u64,
}

/// Why no token can be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The server's session id is longer than a token can carry, or not visible ASCII; or the node's id is too long.
    #[error("the server's session id is longer than {MAX_UPSTREAM} bytes or not visible ASCII")]
    UpstreamId,
    /// The cryptographic library refused.
    #[error("sealing failed")]
    Crypto,
}

/// Why a token does not open. All of them are 404 to the client, who then initialises again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not in the form of a token.
    #[error("not a session token of this gateway")]
    Malformed,
    /// Sealed with a key that is not (or no longer) in the configuration.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// Not sealed by us, or changed since.
    #[error("the seal does not hold")]
    Forged,
    /// Past its end.
    #[error("the session has expired")]
    Expired,
    /// Genuine, but of another principal, organisation or server.
    #[error("the session belongs to somebody else")]
    NotYours,
}

impl OpenError {
    /// A short, closed name for metrics and audit records.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "session_malformed",
            Self::UnknownKey => "session_unknown_key",
            Self::Forged => "session_forged",
            Self::Expired => "session_expired",
            Self::NotYours => "session_not_yours",
        }
    }
}

/// Seals a session with `key`, the configuration's current one.
pub fn seal(key: &SessionKey, holder: &Holder<'_>, token: &Token) -> Result<String, SealError> {
    let mut sealed = match token {
        Token::Sealed(session) => encode(holder, session)?,
        Token::Owned(owned) => encode_owned(holder, owned)?,
        Token::Parked(parked) => encode_parked(holder, parked)?,
    };
    let nonce = cipher(key)
        .and_then(|cipher| cipher.seal_in_place_append_tag(Aad::from(aad(&key.key_id)), &mut sealed).ok())
        .ok_or(SealError::Crypto)?;
    let mut bytes = Vec::with_capacity(NONCE_LEN + sealed.len());
    bytes.extend_from_slice(nonce.as_ref());
    bytes.append(&mut sealed);
    let mut text = String::with_capacity(key.key_id.len() + 1 + bytes.len().div_ceil(3) * 4);
    text.push_str(&key.key_id);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
    Ok(text)
}

/// Opens a token for `holder` at `now` (seconds since the Unix epoch); `key_of` finds a session key by its id.
pub fn open<'k>(
    key_of: impl FnOnce(&str) -> Option<&'k SessionKey>,
    text: &str,
    holder: &Holder<'_>,
    now: u64,
) -> Result<Token, OpenError> {
    if text.len() > MAX_TEXT {
        return Err(OpenError::Malformed);
    }
    let (key_id, encoded) = text.rsplit_once('.').ok_or(OpenError::Malformed)?;
    let mut bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_not_base64| OpenError::Malformed)?;
    let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(OpenError::Malformed)?;
    let key = key_of(key_id).ok_or(OpenError::UnknownKey)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_length| OpenError::Malformed)?;
    let plain = cipher(key)
        .and_then(|cipher| cipher.open_in_place(nonce, Aad::from(aad(key_id)), sealed).ok())
        .ok_or(OpenError::Forged)?;
    let (bond, token) = decode(plain).ok_or(OpenError::Malformed)?;
    if !bool::from(bond.ct_eq(&bond_of(holder))) {
        return Err(OpenError::NotYours);
    }
    if now >= token.expires_at() {
        return Err(OpenError::Expired);
    }
    Ok(token)
}

impl Token {
    fn expires_at(&self) -> u64 {
        match self {
            Self::Sealed(session) => session.expires_at,
            Self::Owned(owned) => owned.expires_at,
            Self::Parked(parked) => parked.expires_at,
        }
    }
}

fn cipher(key: &SessionKey) -> Option<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, key.key.as_ref()).ok()
}

fn aad(key_id: &str) -> Vec<u8> {
    [b"mcpgw session 1\0", key_id.as_bytes()].concat()
}

/// SHA-256 over the holder's parts, each with its length, so that no two holders share a digest.
fn bond_of(holder: &Holder<'_>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in [holder.subject, holder.credential_kind, holder.org_id, holder.server_id] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut bond = [0; 32];
    bond.copy_from_slice(context.finish().as_ref());
    bond
}

fn encode(holder: &Holder<'_>, session: &Session) -> Result<Vec<u8>, SealError> {
    let upstream = session.upstream_id.as_deref();
    if upstream.is_some_and(|id| id.len() > MAX_UPSTREAM || !id.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(SealError::UpstreamId);
    }
    let mut plain = Vec::with_capacity(FIXED + upstream.map_or(0, str::len) + AES_256_GCM.tag_len());
    plain.push(SEALED);
    plain.extend_from_slice(&bond_of(holder));
    plain.extend_from_slice(&session.endpoint.to_be_bytes());
    plain.push(version_byte(session.version));
    plain.extend_from_slice(&session.issued_at.to_be_bytes());
    plain.extend_from_slice(&session.expires_at.to_be_bytes());
    plain.push(u8::from(upstream.is_some()));
    plain.extend_from_slice(upstream.unwrap_or_default().as_bytes());
    Ok(plain)
}

fn encode_owned(holder: &Holder<'_>, owned: &Owned) -> Result<Vec<u8>, SealError> {
    if owned.node.len() > MAX_NODE {
        return Err(SealError::UpstreamId);
    }
    let mut plain = Vec::with_capacity(1 + 32 + 16 + 8 + owned.node.len() + AES_256_GCM.tag_len());
    plain.push(OWNED);
    plain.extend_from_slice(&bond_of(holder));
    plain.extend_from_slice(owned.id.as_bytes());
    plain.extend_from_slice(&owned.expires_at.to_be_bytes());
    plain.extend_from_slice(owned.node.as_bytes());
    Ok(plain)
}

fn encode_parked(holder: &Holder<'_>, parked: &Parked) -> Result<Vec<u8>, SealError> {
    let mut plain = Vec::with_capacity(1 + 32 + 32 + 4 + 8 + 24 + MAX_NODE + AES_256_GCM.tag_len());
    plain.push(PARKED);
    plain.extend_from_slice(&bond_of(holder));
    plain.extend_from_slice(&parked.digest);
    plain.extend_from_slice(&parked.round.to_be_bytes());
    plain.extend_from_slice(&parked.expires_at.to_be_bytes());
    if let Some(call) = &parked.call {
        if call.node.len() > MAX_NODE {
            return Err(SealError::UpstreamId);
        }
        plain.extend_from_slice(call.session.as_bytes());
        plain.extend_from_slice(&call.number.to_be_bytes());
        plain.extend_from_slice(call.node.as_bytes());
    }
    Ok(plain)
}

fn decode_parked(plain: &[u8]) -> Option<Parked> {
    let (digest, rest) = plain.split_first_chunk::<32>()?;
    let (round, rest) = rest.split_first_chunk::<4>()?;
    let (expires_at, rest) = rest.split_first_chunk::<8>()?;
    let (round, expires_at) = (u32::from_be_bytes(*round), u64::from_be_bytes(*expires_at));
    if rest.is_empty() {
        return Some(Parked { call: None, round, digest: *digest, expires_at });
    }
    let (session, rest) = rest.split_first_chunk::<16>()?;
    let (number, node) = rest.split_first_chunk::<8>()?;
    let node = std::str::from_utf8(node).ok()?.into();
    let call = Waiting { node, session: Uuid::from_bytes(*session), number: u64::from_be_bytes(*number) };
    Some(Parked { call: Some(call), round, digest: *digest, expires_at })
}

fn decode(plain: &[u8]) -> Option<([u8; 32], Token)> {
    let (format, rest) = plain.split_first()?;
    let (bond, rest) = rest.split_first_chunk::<32>()?;
    let token = match *format {
        SEALED => Token::Sealed(decode_sealed(rest)?),
        OWNED => Token::Owned(decode_owned(rest)?),
        PARKED => Token::Parked(decode_parked(rest)?),
        _ => return None,
    };
    Some((*bond, token))
}

fn decode_owned(plain: &[u8]) -> Option<Owned> {
    let (id, rest) = plain.split_first_chunk::<16>()?;
    let (expires_at, node) = rest.split_first_chunk::<8>()?;
    let node = std::str::from_utf8(node).ok()?.into();
    Some(Owned { id: Uuid::from_bytes(*id), node, expires_at: u64::from_be_bytes(*expires_at) })
}

fn decode_sealed(plain: &[u8]) -> Option<Session> {
    let (endpoint, rest) = plain.split_first_chunk::<2>()?;
    let (version, rest) = rest.split_first()?;
    let (issued_at, rest) = rest.split_first_chunk::<8>()?;
    let (expires_at, rest) = rest.split_first_chunk::<8>()?;
    let (has_upstream, upstream) = rest.split_first()?;
    let upstream_id = match has_upstream {
        1 => Some(std::str::from_utf8(upstream).ok()?.into()),
        _ => None,
    };
    Some(Session {
        upstream_id,
        endpoint: u16::from_be_bytes(*endpoint),
        version: version_of(*version)?,
        issued_at: u64::from_be_bytes(*issued_at),
        expires_at: u64::from_be_bytes(*expires_at),
    })
}

/// Bytes on the wire of a rolling fleet: never reuse one.
fn version_byte(version: Version) -> u8 {
    match version {
        Version::V2024_11_05 => 1,
        Version::V2025_03_26 => 2,
        Version::V2025_06_18 => 3,
        Version::V2025_11_25 => 4,
        Version::V2026_07_28 => 5,
    }
}

fn version_of(byte: u8) -> Option<Version> {
    [Version::V2024_11_05, Version::V2025_03_26, Version::V2025_06_18, Version::V2025_11_25, Version::V2026_07_28]
        .into_iter()
        .find(|version| version_byte(*version) == byte)
}
