//! Join tokens as an operator hands them over: `mcpgwj_<id>_<secret>.<pin>`.
//! The part before the dot goes to the control plane, the pin stays here and tells the right control plane from any other.

use secrecy::{ExposeSecret, SecretString};

/// A one-time token. Never printed.
pub struct JoinToken {
    bearer: SecretString,
    pin: [u8; 32],
}

/// Why a join token cannot be used. Says nothing about its secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the join token does not look like mcpgwj_<id>_<secret>.<pin>; copy all of it, or create another with `mcpgw node join-token create`"
    )]
    Shape,
    #[error(
        "the join token's pin (after the dot) is not 64 lower-case hexadecimal digits; copy all of it, or create another with `mcpgw node join-token create`"
    )]
    Pin,
}

impl JoinToken {
    pub fn parse(text: &SecretString) -> Result<Self, TokenError> {
        let (bearer, pin) = text.expose_secret().trim().split_once('.').ok_or(TokenError::Shape)?;
        let (id, secret) = bearer.strip_prefix("mcpgwj_").and_then(|rest| rest.split_once('_')).ok_or(TokenError::Shape)?;
        let readable = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
        if !readable(id) || !readable(secret) {
            return Err(TokenError::Shape);
        }
        let digits = pin.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        if !digits || hex::decode_to_slice(pin, &mut bytes).is_err() {
            return Err(TokenError::Pin);
        }
        Ok(Self { bearer: bearer.to_owned().into(), pin: bytes })
    }

    /// What the control plane gets to see.
    #[must_use]
    pub fn bearer(&self) -> &str {
        self.bearer.expose_secret()
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the control plane's certificate authority.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JoinToken, TokenError> {
        JoinToken::parse(&text.to_owned().into())
    }

    #[test]
    fn a_token_parts_into_what_travels_and_what_stays() {
        let token = parse(&format!(" mcpgwj_abc_s3cret_with_more.{}\n", "0f".repeat(32))).unwrap();
        assert_eq!((token.bearer(), token.pin()), ("mcpgwj_abc_s3cret_with_more", [0x0f; 32]));
    }

    #[test]
    fn what_is_cut_or_mangled_is_refused_without_repeating_it() {
        let pin = "ab".repeat(32);
        let table = [
            ("", TokenError::Shape),
            ("mcpgwj_abc_s3cret", TokenError::Shape),
            (&format!("mcpgw_abc_s3cret.{pin}"), TokenError::Shape),
            (&format!("mcpgwj_abc.{pin}"), TokenError::Shape),
            (&format!("mcpgwj_abc_.{pin}"), TokenError::Shape),
            ("mcpgwj_abc_s3cret.", TokenError::Pin),
            (&format!("mcpgwj_abc_s3cret.{}", &pin[1..]), TokenError::Pin),
            (&format!("mcpgwj_abc_s3cret.{}", pin.to_uppercase()), TokenError::Pin),
        ];
        for (text, expected) in table {
            let error = parse(text).err().unwrap();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}
