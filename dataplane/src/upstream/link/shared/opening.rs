//! The handshake with a shared process, once; and what each session's `initialize` is answered from it.

use bytes::Bytes;
use serde_json::json;

use super::parts::{Parts, elements, member, string};
use crate::children::Child;
use crate::owned::{at, number, refusal, splice};
use crate::transport::Version;
use crate::transport::scan::ScanError;
use crate::transport::scan::lexer::{Duplicates, Kind, Lexer, Span};

/// The number of the gateway's own `initialize`.
const FIRST: u64 = 0;
/// How deep the answer may nest.
const MAX_DEPTH: usize = 128;

/// What the process said about itself, without what cannot be shared.
#[derive(Debug)]
pub(super) struct Opening {
    result: Bytes,
    /// `protocolVersion`, where it is one that is known.
    version: Option<(Span, Version)>,
}

/// Opens the process as a client that cannot be asked; none where it ends or refuses.
pub(super) async fn open(child: &mut Child) -> Option<Opening> {
    let client = json!({ "name": "mcpgw", "version": env!("CARGO_PKG_VERSION") });
    let params = json!({ "protocolVersion": Version::V2025_11_25.as_str(), "capabilities": {}, "clientInfo": client });
    let opening = json!({ "jsonrpc": "2.0", "id": FIRST, "method": "initialize", "params": params });
    child.send(opening.to_string().into()).await.ok()?;
    loop {
        let Ok(line) = child.next().await? else { continue };
        for message in elements(&line)? {
            let parts = Parts::read(&message).ok()?;
            match (parts.method.as_deref(), at(&message, parts.id)) {
                (Some(method), Some(id)) => child.send(answer(method, id)).await.ok()?,
                (None, Some(id)) if number(id) == Some(FIRST) => {
                    let opening = Opening::of(at(&message, parts.result)?)?;
                    let initialized = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
                    child.send(Bytes::from_static(initialized)).await.ok()?;
                    return Some(opening);
                }
                // Nobody is there yet who could hear it.
                (_, _) => {}
            }
        }
    }
}

/// What a process is answered that asks something.
pub(super) fn answer(method: &str, id: &str) -> Bytes {
    if method == "ping" {
        return format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into();
    }
    refusal(id, -32601, "The clients of a shared process cannot be asked")
}

impl Opening {
    /// From the result, as the process wrote it.
    pub fn of(result: &str) -> Option<Self> {
        let (_, tasks) = read(result).ok()?;
        // A task has no owner that the process knows of: any session could name it.
        let result =
            tasks.map_or_else(|| Bytes::copy_from_slice(result.as_bytes()), |tasks| splice(result.as_bytes(), &[(tasks, "")]));
        let (version, _) = read(std::str::from_utf8(&result).ok()?).ok()?;
        Some(Self { version, result })
    }

    /// The answer to a session's request with this number, in a version that its client knows.
    pub fn answer(&self, own: u64, wanted: Option<&str>) -> Bytes {
        let wanted = wanted.and_then(Version::parse);
        let version =
            self.version.zip(wanted).map(|((span, spoken), wanted)| (span, format!("\"{}\"", spoken.min(wanted).as_str())));
        let places: Vec<(Span, &str)> = version.iter().map(|(span, text)| (*span, &**text)).collect();
        let result = splice(&self.result, &places);
        [format!(r#"{{"jsonrpc":"2.0","id":{own},"result":"#).as_bytes(), &result, b"}"].concat().into()
    }
}

type Found = (Option<(Span, Version)>, Option<Span>);

/// Where the version is, and `capabilities.tasks` with its name and a comma.
fn read(result: &str) -> Result<Found, ScanError> {
    let mut lexer = Lexer::new(result, MAX_DEPTH, Duplicates::WhereRead);
    let (mut version, mut tasks) = (None, None);
    lexer.object(|lexer, key| {
        match &*key.text {
            "protocolVersion" => {
                version = string(lexer)?.and_then(|(span, text)| Some((span, Version::parse(&text)?)));
            }
            "capabilities" if lexer.peek()? == Kind::Object => lexer.object(|lexer, key| {
                let value = lexer.value()?;
                if key.text == "tasks" {
                    tasks = Some(member(result, key, value));
                }
                Ok(())
            })?,
            _ => drop(lexer.value()?),
        }
        Ok(())
    })?;
    Ok((version, tasks))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str =
        r#"{"serverInfo":{"n":1.10}, "capabilities":{"tools":{},"tasks":{"list":{}}}, "protocolVersion":"2025-11-25"}"#;

    #[test]
    fn each_session_hears_of_its_own_version_and_of_no_tasks() {
        let opening = Opening::of(RESULT).unwrap();
        let answer = |version| String::from_utf8(opening.answer(7, version).to_vec()).unwrap();
        let expected = |version: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":7,"result":{{"serverInfo":{{"n":1.10}}, "capabilities":{{"tools":{{}}}}, "protocolVersion":"{version}"}}}}"#
            )
        };
        assert_eq!(answer(Some("2025-03-26")), expected("2025-03-26"));
        for newest in [Some("2025-11-25"), Some("2026-07-28"), Some("odd"), None] {
            assert_eq!(answer(newest), expected("2025-11-25"), "{newest:?}");
        }
    }

    #[test]
    fn an_unknown_version_is_passed_on_and_what_is_no_object_is_none() {
        let opening = Opening::of(r#"{"protocolVersion":"x"}"#).unwrap();
        assert_eq!(opening.answer(1, Some("2025-03-26")), r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"x"}}"#);
        for wrong in ["1", "[]", r#"{"capabilities":{},"capabilities":{}}"#] {
            assert!(Opening::of(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_ping_is_answered_and_nothing_else() {
        assert_eq!(answer("ping", "\"a\""), r#"{"jsonrpc":"2.0","id":"a","result":{}}"#);
        assert!(answer("roots/list", "1").starts_with(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"#));
    }
}
