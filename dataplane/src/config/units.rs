//! Durations (`10s`), sizes (`4MiB`) and secrets as they are written in configuration.

/// `10s`, `500ms`, `5m`, `24h`; a bare number is seconds.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}ms", value.as_millis()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = super::NumberOrText::deserialize(from)?.0;
        let (number, unit) = super::split(&text);
        let milliseconds = UNITS.iter().find(|(name, _)| *name == if unit.is_empty() { "s" } else { unit });
        match (number.parse::<u64>(), milliseconds) {
            (Ok(number), Some((_, scale))) => Ok(Duration::from_millis(number.saturating_mul(*scale))),
            _ => Err(D::Error::custom(format!("`{text}` is not a duration such as 500ms, 10s, 5m or 24h"))),
        }
    }
}

/// `4MiB`, `16KiB`, `1GiB`; a bare number is bytes.
pub mod bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 4] = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

    pub fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = super::NumberOrText::deserialize(from)?.0;
        let (number, unit) = super::split(&text);
        match (number.parse::<u64>(), UNITS.iter().find(|(name, _)| *name == unit)) {
            (Ok(number), Some((_, scale))) => Ok(number.saturating_mul(*scale)),
            _ => Err(D::Error::custom(format!("`{text}` is not a size such as 4MiB, 16KiB or a number of bytes"))),
        }
    }
}

/// A secret that never prints: `***` when configuration is shown.
pub mod secret {
    use secrecy::SecretString;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(_) => to.serialize_some("***"),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(SecretString::from))
    }
}

/// What YAML and the environment may give for a quantity.
struct NumberOrText(String);

impl<'de> serde::Deserialize<'de> for NumberOrText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        Ok(match Either::deserialize(from)? {
            Either::Number(number) => Self(number.to_string()),
            Either::Text(text) => Self(text),
        })
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}
