//! Session tokens: nothing opens that was not sealed here, for whom it was sealed, byte for byte.

use mcp_gateway::snapshot::SessionKey;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::session::{Holder, OpenError, Owned, Session, Token, open, seal};
use crate::transport::Version;

const NOW: u64 = 1_800_000_000;
const HOLDER: Holder<'_> = Holder { subject: "alice", credential_kind: "jwt", org_id: "acme", server_id: "github" };

/// Taken as text, as changes to a token, and as what a token says.
pub fn session_token(data: &[u8]) {
    // Always the same, so that a finding is found again; the nonce alone differs from run to run.
    let key = SessionKey { key_id: "k.1".to_owned(), key: Zeroizing::new([7; 32]) };
    let text = String::from_utf8_lossy(data);
    for made_up in [text.as_ref(), &format!("k.1.{text}")] {
        assert!(opened(&key, made_up, &HOLDER).is_err(), "made up: {made_up}");
    }
    for token in tokens(data, &text) {
        let Ok(sealed) = seal(&key, &HOLDER, &token) else { continue };
        assert_eq!(opened(&key, &sealed, &HOLDER), Ok(token.clone()), "it says what was sealed");
        let changed = changed(&sealed, data);
        if changed != sealed {
            assert!(opened(&key, &changed, &HOLDER).is_err(), "{changed} opens as {sealed}");
        }
        let other = Holder { subject: &text, ..HOLDER };
        if text != HOLDER.subject {
            assert_eq!(opened(&key, &sealed, &other), Err(OpenError::NotYours));
        }
    }
}

fn opened(key: &SessionKey, text: &str, holder: &Holder<'_>) -> Result<Token, OpenError> {
    open(|id| (id == key.key_id).then_some(key), text, holder, NOW)
}

fn tokens(data: &[u8], text: &str) -> [Token; 2] {
    let number = data.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    let expires_at = NOW + 1 + number % 3600;
    let versions = [Version::V2024_11_05, Version::V2025_03_26, Version::V2025_06_18, Version::V2025_11_25];
    let session = Session {
        upstream_id: (!data.is_empty()).then(|| text.into()),
        endpoint: u16::try_from(number % 65_536).expect("it is small"),
        version: versions[data.len() % versions.len()],
        issued_at: number,
        expires_at,
    };
    let owned = Owned { id: Uuid::from_u64_pair(number, !number), node: text.into(), expires_at };
    [Token::Sealed(session), Token::Owned(owned)]
}

/// A token with some of its characters others, some gone, some more: three bytes of input for each change.
fn changed(sealed: &str, changes: &[u8]) -> String {
    let mut bytes = sealed.as_bytes().to_vec();
    for change in changes.chunks_exact(3).take(16) {
        let at = usize::from(change[0]) % (bytes.len() + 1);
        let character = change[1] & 0x7f;
        match change[2] % 3 {
            0 => bytes.insert(at, character),
            1 if at < bytes.len() => bytes[at] = character,
            _ => bytes.truncate(bytes.len().saturating_sub(usize::from(change[2] % 4))),
        }
    }
    String::from_utf8(bytes).expect("ASCII")
}
