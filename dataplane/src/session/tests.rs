use std::collections::HashSet;

use zeroize::Zeroizing;

use super::*;

const NOW: u64 = 1_800_000_000;

const ALICE: Holder<'_> = Holder {
    subject: "alice",
    credential_kind: "jwt",
    org_id: "9f1c1a30-0000-4000-8000-000000000001",
    server_id: "9f1c1a30-0000-4000-8000-000000000002",
};

fn key(id: &str, byte: u8) -> SessionKey {
    SessionKey { key_id: id.to_owned(), key: Zeroizing::new([byte; 32]) }
}

fn session(upstream: Option<&str>) -> Session {
    Session {
        upstream_id: upstream.map(Box::from),
        endpoint: 3,
        version: Version::V2025_06_18,
        issued_at: NOW,
        expires_at: NOW + 3600,
    }
}

fn seal(key: &SessionKey, holder: &Holder<'_>, session: &Session) -> Result<String, SealError> {
    super::seal(key, holder, &Token::Sealed(session.clone()))
}

fn open_with(key: &SessionKey, text: &str, holder: &Holder<'_>, now: u64) -> Result<Session, OpenError> {
    open_any(key, text, holder, now).map(|token| match token {
        Token::Sealed(session) => session,
        other @ (Token::Owned(_) | Token::Parked(_)) => panic!("{other:?}"),
    })
}

fn open_any(key: &SessionKey, text: &str, holder: &Holder<'_>, now: u64) -> Result<Token, OpenError> {
    open(|id| (id == key.key_id).then_some(key), text, holder, now)
}

#[test]
fn what_was_sealed_opens_for_its_holder_until_it_expires() {
    let key = key("k.1", 7);
    for upstream in [None, Some(""), Some("1868a90c-e1f2"), Some("~!\"#$%&'()*+,-./:;<=>?@[]^_`{|}")] {
        let text = seal(&key, &ALICE, &session(upstream)).unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert_eq!(open_with(&key, &text, &ALICE, NOW), Ok(session(upstream)));
        assert_eq!(open_with(&key, &text, &ALICE, NOW + 3599), Ok(session(upstream)));
        assert_eq!(open_with(&key, &text, &ALICE, NOW + 3600), Err(OpenError::Expired));
    }
}

#[test]
fn an_owned_session_names_its_node_and_is_its_holders_alone() {
    let key = key("k", 7);
    let token =
        Token::Owned(Owned { id: Uuid::from_u128(5), node: "0190a000-0000-7000-8000-00000000000a".into(), expires_at: NOW + 60 });
    let text = super::seal(&key, &ALICE, &token).unwrap();
    assert_eq!(open_any(&key, &text, &ALICE, NOW), Ok(token.clone()));
    assert_eq!(open_any(&key, &text, &ALICE, NOW + 60), Err(OpenError::Expired));
    assert_eq!(open_any(&key, &text, &Holder { subject: "bob", ..ALICE }, NOW), Err(OpenError::NotYours));
}

#[test]
fn every_version_survives() {
    let key = key("k", 7);
    for version in [Version::V2024_11_05, Version::V2025_03_26, Version::V2025_06_18, Version::V2025_11_25, Version::V2026_07_28]
    {
        let sealed = Session { version, ..session(None) };
        assert_eq!(open_with(&key, &seal(&key, &ALICE, &sealed).unwrap(), &ALICE, NOW), Ok(sealed));
    }
}

#[test]
fn it_is_nobody_elses() {
    let key = key("k", 7);
    let text = seal(&key, &ALICE, &session(Some("u"))).unwrap();
    let others = [
        Holder { subject: "bob", ..ALICE },
        Holder { subject: "", ..ALICE },
        Holder { subject: "alicej", credential_kind: "wt", ..ALICE },
        Holder { credential_kind: "api_key", ..ALICE },
        Holder { org_id: "9f1c1a30-0000-4000-8000-000000000009", ..ALICE },
        Holder { server_id: "9f1c1a30-0000-4000-8000-000000000009", ..ALICE },
        Holder { org_id: ALICE.server_id, server_id: ALICE.org_id, ..ALICE },
    ];
    for holder in others {
        assert_eq!(open_with(&key, &text, &holder, NOW), Err(OpenError::NotYours), "{holder:?}");
        // An expired token of somebody else is still somebody else's.
        assert_eq!(open_with(&key, &text, &holder, NOW + 9999), Err(OpenError::NotYours), "{holder:?}");
    }
}

#[test]
fn no_changed_bit_opens() {
    let key = key("k", 7);
    let text = seal(&key, &ALICE, &session(Some("upstream"))).unwrap();
    let (prefix, encoded) = text.split_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(encoded).unwrap();
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[index] ^= 1 << bit;
            let changed = format!("{prefix}.{}", URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(open_with(&key, &changed, &ALICE, NOW), Err(OpenError::Forged), "byte {index} bit {bit}");
        }
    }
}

#[test]
fn no_changed_character_opens() {
    let key = key("k", 7);
    let text = seal(&key, &ALICE, &session(Some("upstream"))).unwrap();
    for index in 0..text.len() {
        for other in [b'A', b'B', b'.', b'=', b' ', b'+'] {
            let mut changed = text.clone().into_bytes();
            if changed[index] == other {
                continue;
            }
            changed[index] = other;
            let changed = String::from_utf8(changed).unwrap();
            assert!(open_with(&key, &changed, &ALICE, NOW).is_err(), "{index} {changed}");
        }
    }
}

#[test]
fn what_is_not_a_token_is_refused_for_its_reason() {
    let key = key("k", 7);
    let text = seal(&key, &ALICE, &session(Some("u"))).unwrap();
    let encoded = text.strip_prefix("k.").unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(encoded).unwrap();
    #[rustfmt::skip]
    let table = [
        (String::new(), OpenError::Malformed),
        ("abc".into(), OpenError::Malformed),
        (".".into(), OpenError::Malformed),
        ("k.".into(), OpenError::Malformed),
        ("k.AAAA".into(), OpenError::Malformed),
        ("k.AAAAAAAAAAAAAAAA".into(), OpenError::Forged),
        (encoded.into(), OpenError::Malformed),
        (format!("{text}="), OpenError::Malformed),
        (format!("{text}!"), OpenError::Malformed),
        (format!("k.{}", "+/".repeat(40)), OpenError::Malformed),
        (format!("other.{encoded}"), OpenError::UnknownKey),
        (format!(".{encoded}"), OpenError::UnknownKey),
        (format!("k.k.{encoded}"), OpenError::UnknownKey),
        (format!("k.{}", URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1])), OpenError::Forged),
        ("k.".to_owned() + &"A".repeat(5000), OpenError::Malformed),
        ("1868a90c-e1f2-4d0e-9c3b-0d9f4a527c1e".into(), OpenError::Malformed),
    ];
    for (text, expected) in table {
        assert_eq!(open_with(&key, &text, &ALICE, NOW), Err(expected), "{text}");
    }
}

#[test]
fn the_key_id_is_sealed_too_and_other_keys_do_not_open() {
    let (one, two) = (key("one", 1), key("two", 2));
    let text = seal(&one, &ALICE, &session(None)).unwrap();
    let renamed = text.replacen("one.", "two.", 1);
    assert_eq!(open_with(&two, &renamed, &ALICE, NOW), Err(OpenError::Forged));
    let same_bytes_other_name = key("two", 1);
    assert_eq!(open_with(&same_bytes_other_name, &renamed, &ALICE, NOW), Err(OpenError::Forged));
}

#[test]
fn no_two_tokens_are_alike() {
    let key = key("k", 7);
    let texts: HashSet<String> = (0..100).map(|_| seal(&key, &ALICE, &session(Some("u"))).unwrap()).collect();
    assert_eq!(texts.len(), 100);
}

#[test]
fn upstream_ids_that_no_header_could_carry_are_not_sealed() {
    let key = key("k", 7);
    let long = "x".repeat(1024);
    assert!(open_with(&key, &seal(&key, &ALICE, &session(Some(&long))).unwrap(), &ALICE, NOW).is_ok());
    for upstream in ["x".repeat(1025).as_str(), "a b", "a\nb", "é"] {
        assert_eq!(seal(&key, &ALICE, &session(Some(upstream))), Err(SealError::UpstreamId));
    }
}
