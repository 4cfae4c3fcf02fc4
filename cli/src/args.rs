//! Flags that verbs share, and the texts they parse: durations, moments, protobuf enums.
//! Never talks to anybody. Flattened into the argument structs of `commands/`.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use mcp_gateway::proto::admin::v1::Role;
use mcp_gateway::proto::config::v1::{
    AuditFullAction, AuditSync, Effect, Era, LegacySessions, LimitAway, LimitPer, Mode, Transport,
};
use prost_types::{FieldMask, Timestamp};
use uuid::Uuid;

use crate::failure::Failure;

/// What every change takes.
#[derive(Debug, Args)]
pub struct Change {
    /// Run every check on the server and change nothing
    #[arg(long)]
    pub validate_only: bool,
    /// Makes a repeated command safe for a day: the first answer is given again [default: a new one]
    #[arg(long, value_name = "UUID")]
    request_id: Option<Uuid>,
}

impl Change {
    /// The request id to send. One command sends one id however often it tries.
    pub fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::new_v4).to_string()
    }

    /// Tells people on stderr what happened, or that nothing did.
    pub fn say(&self, done: &str) {
        if self.validate_only {
            eprintln!("every check passed; nothing was changed");
        } else {
            eprintln!("{done}");
        }
    }
}

/// Which part of a list.
#[derive(Debug, Args)]
pub struct Page {
    /// Stop after this many; 0 is all
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Go on where an earlier list stopped
    #[arg(long, value_name = "TOKEN", default_value = "", allow_hyphen_values = true)]
    page_token: String,
}

impl Page {
    /// Fetches pages until the limit; says on stderr how to go on if there is more.
    pub async fn collect<T>(
        &self,
        fetch: impl AsyncFn(i32, String) -> anyhow::Result<(Vec<T>, String)>,
    ) -> anyhow::Result<Vec<T>> {
        let mut found = Vec::new();
        let mut token = self.page_token.clone();
        loop {
            let (items, next) = fetch(self.next_size(found.len()), token).await?;
            found.extend(items);
            if next.is_empty() {
                return Ok(found);
            }
            if self.limit != 0 && found.len() >= self.limit {
                eprintln!("there is more: add --limit 0, or --page-token {next}");
                return Ok(found);
            }
            token = next;
        }
    }

    fn next_size(&self, have: usize) -> i32 {
        const MOST: usize = 500;
        let want = match self.limit {
            0 => MOST,
            limit => limit.saturating_sub(have).min(MOST),
        };
        i32::try_from(want).unwrap_or(i32::MAX)
    }
}

/// The fields that a change names, filled together with the resource.
#[derive(Debug, Default)]
pub struct Mask(Vec<String>);

impl Mask {
    /// Takes a flag into a field: `path` joins the mask if the flag was given.
    pub fn set<T>(&mut self, path: &str, field: &mut T, flag: Option<T>) {
        if let Some(value) = flag {
            *field = value;
            self.touch(path);
        }
    }

    /// As `set` for a repeatable flag: given at least once, it replaces the whole list; one empty value empties it.
    pub fn replace(&mut self, path: &str, field: &mut Vec<String>, flags: Vec<String>) {
        let given = !flags.is_empty();
        let items = flags.into_iter().filter(|it| !it.is_empty()).collect();
        self.set(path, field, given.then_some(items));
    }

    /// Names a field.
    pub fn touch(&mut self, path: &str) {
        if !self.0.iter().any(|known| known == path) {
            self.0.push(path.to_owned());
        }
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mask; an empty one is wrong usage, because to the server it would mean every field.
    pub fn finish(self) -> Result<Option<FieldMask>, Failure> {
        if self.0.is_empty() {
            return Err(Failure::Usage("nothing to change: give at least one flag that names a field".into()));
        }
        Ok(Some(FieldMask { paths: self.0 }))
    }
}

/// `key=value`; the value may be empty.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A change of one label: `key=value` sets it, `key-` takes it away.
pub fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    match (label(text), text.strip_suffix('-')) {
        (Ok((key, value)), _) => Ok((key, Some(value))),
        (Err(_), Some(key)) => Ok((key.to_owned(), None)),
        (Err(_), None) => Err("expected KEY=VALUE to set a label, or KEY- to take it away".into()),
    }
}

/// `90`, `90s`, `15m`, `2h` or `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds_per_unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        unit => {
            return Err(format!("unknown unit {unit:?}: use s, m, h or d, such as 15m"));
        }
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(seconds_per_unit))
        .map(Duration::from_secs)
        .ok_or_else(|| "not a duration: write it like 90s, 15m, 2h or 7d".into())
}

/// An RFC 3339 moment, or how long ago: `2026-11-22T20:04:05Z`, `15m`.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = duration(text) {
        return Ok((SystemTime::now() - ago).into());
    }
    let parsed = DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("neither a duration like 15m nor an RFC 3339 moment: {error}"))?;
    Ok(SystemTime::from(parsed).into())
}

/// A duration as protobuf wants it.
pub fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// `--transport`, `--era` and so on: the enum's own names in lower case, with hyphens, as `i32`.
fn proto_enum(
    prefix: &'static str,
    names: &'static [&'static str],
    parse: fn(&str) -> Option<i32>,
) -> impl TypedValueParser<Value = i32> {
    PossibleValuesParser::new(names).map(move |name| {
        let full = format!("{prefix}{}", name.to_uppercase().replace('-', "_"));
        parse(&full).expect("the test below checks every name")
    })
}

macro_rules! enum_flag {
    ($function:ident, $enum:ty, $prefix:literal, [$($name:literal),+]) => {
        #[doc = concat!("Values of `", stringify!($enum), "`.")]
        pub fn $function() -> impl TypedValueParser<Value = i32> {
            proto_enum($prefix, &[$($name),+], |name| <$enum>::from_str_name(name).map(i32::from))
        }
    };
}

enum_flag!(era, Era, "ERA_", ["unspecified", "legacy", "modern", "both"]);
enum_flag!(legacy_sessions, LegacySessions, "LEGACY_SESSIONS_", ["pooled", "per-call"]);
enum_flag!(effect, Effect, "EFFECT_", ["allow", "deny"]);
enum_flag!(mode, Mode, "MODE_", ["enforce", "shadow"]);
enum_flag!(audit_full, AuditFullAction, "AUDIT_FULL_ACTION_", ["block", "allow"]);
enum_flag!(audit_sync, AuditSync, "AUDIT_SYNC_", ["write", "disk"]);
enum_flag!(limit_away, LimitAway, "LIMIT_AWAY_", ["share", "open", "closed"]);
enum_flag!(role, Role, "ROLE_", ["owner", "admin", "operator", "auditor", "member", "service-account"]);

/// Values of `Transport`; `auto` is none of them.
pub fn transport() -> impl TypedValueParser<Value = i32> {
    PossibleValuesParser::new(["auto", "streamable-http", "http-sse", "websocket", "stdio", "json-rpc"]).map(|name| {
        let transport = Transport::from_str_name(&format!("TRANSPORT_{}", name.to_uppercase().replace('-', "_")));
        transport.unwrap_or(Transport::Unspecified).into()
    })
}

/// Values of `LimitPer`, and `organization`, which is none of them: one count of everything.
pub fn limit_per() -> impl TypedValueParser<Value = i32> {
    PossibleValuesParser::new(["user", "server", "endpoint", "organization"]).map(|name| {
        let per = LimitPer::from_str_name(&format!("LIMIT_PER_{}", name.to_uppercase()));
        per.unwrap_or(LimitPer::Unspecified).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        let table = [("90", Some(90)), ("90s", Some(90)), ("15m", Some(900)), ("2h", Some(7_200)), ("7d", Some(604_800))];
        let wrong = [("", None), ("m", None), ("1w", None), ("-1s", None), ("99999999999999999999d", None)];
        for (text, seconds) in table.into_iter().chain(wrong) {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn a_label_is_set_or_taken_away() {
        let set = |key: &str, value: &str| Ok((key.to_owned(), Some(value.to_owned())));
        assert_eq!(label_change("zone=a-"), set("zone", "a-"));
        assert_eq!(label_change("zone="), set("zone", ""));
        assert_eq!(label_change("zone-"), Ok(("zone".to_owned(), None)));
        assert!(label_change("zone").is_err());
    }

    #[test]
    fn a_moment_is_absolute_or_ago() {
        let absolute = moment("2026-11-22T20:04:05Z").unwrap();
        assert_eq!(absolute.seconds, 1_795_377_845);
        let now = Timestamp::from(SystemTime::now());
        assert!(moment("1h").unwrap().seconds <= now.seconds - 3_599);
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn every_enum_name_in_the_flags_exists() {
        fn check(parser: impl TypedValueParser<Value = i32>) {
            let values: Vec<_> = parser.possible_values().unwrap().map(|v| v.get_name().to_owned()).collect();
            for value in values {
                let command = clap::Command::new("test");
                parser.parse_ref(&command, None, value.as_ref()).unwrap();
            }
        }
        check(transport());
        check(era());
        check(legacy_sessions());
        check(effect());
        check(mode());
        check(audit_full());
        check(audit_sync());
        check(limit_per());
        check(limit_away());
        check(role());
    }

    #[test]
    fn an_empty_mask_is_refused() {
        let mut name = String::from("old");
        let mut mask = Mask::default();
        mask.set("display_name", &mut name, None);
        assert!(matches!(mask.finish(), Err(Failure::Usage(_))));

        let mut mask = Mask::default();
        mask.set("display_name", &mut name, Some("new".into()));
        mask.touch("display_name");
        assert_eq!(mask.finish().unwrap().unwrap().paths, ["display_name"]);
        assert_eq!(name, "new");
    }
}
