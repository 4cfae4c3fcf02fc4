//! What looks like a secret wherever it stands: tokens of well-known makes, keys, and what is named like a secret in running text.
//!
//! Pure. Compiled once per process; one pass tells which patterns there are, and mostly there are none.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// Stands in place of every secret.
pub const REDACTED: &str = "[redacted]";

/// A pattern, and what is put in its place.
type Pattern = (&'static str, &'static str);

/// In the order in which they are applied: what holds others comes first.
const PATTERNS: &[Pattern] = &[
    // PEM, armoured keys. One that was cut off goes on to the end.
    (r"(?s)-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\z)", REDACTED),
    // JSON Web Tokens, with or without a signature.
    (r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?", REDACTED),
    // The gateway's own API keys and join tokens.
    (r"\bmcpgwj?_[A-Za-z0-9-]+_[A-Za-z0-9_-]+(?:\.[0-9a-f]{64})?", REDACTED),
    // OpenAI, Anthropic and many who write theirs alike; Stripe.
    (r"\b[srp]k[-_][A-Za-z0-9_-]{16,}", REDACTED),
    // GitHub, GitLab, Slack, npm, PyPI, Google, Hugging Face, SendGrid.
    (r"\b(?:gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|gl[a-z]{2,5}-[A-Za-z0-9_-]{16,})", REDACTED),
    (r"\b(?:xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,})", REDACTED),
    (
        r"\b(?:AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})",
        REDACTED,
    ),
    // AWS: ids of keys. Their secrets have no shape of their own and are known by their names, below.
    (r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{16}\b", REDACTED),
    // What follows the name of a scheme in a header.
    (r"(?i)\b(bearer|basic|digest|negotiate)[ \t]+[A-Za-z0-9._~+/=-]{8,}", "$1 [redacted]"),
    // User info of a URL.
    (r"(://)[^/\s@?#]+@", "${1}[redacted]@"),
    // Whole header lines.
    (r"(?im)\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)[ \t]*:[ \t]*[^\r\n]+", "$1: [redacted]"),
    // What begins with a bracket is `[redacted]` already.
    // `password=…`, `"api_key": "…"`, `token: …`, also as JSON within a text.
    (
        r#"(?i)([A-Za-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|authorization|cookie|credential)[A-Za-z0-9_.-]*\\?["']?[ \t]*[:=][ \t]*)(?:\\?"[^"]*"?|'[^']*'?|[^\s,;&"'}\])\[][^\s,;&"'}\])]*)"#,
        "${1}[redacted]",
    ),
];

struct Compiled {
    any: RegexSet,
    each: Vec<(Regex, &'static str)>,
}

static COMPILED: LazyLock<Compiled> = LazyLock::new(|| {
    let patterns = || PATTERNS.iter().map(|(pattern, _)| *pattern);
    Compiled {
        any: RegexSet::new(patterns()).expect("a test compiles them"),
        each: PATTERNS.iter().map(|(pattern, instead)| (Regex::new(pattern).expect("a test compiles them"), *instead)).collect(),
    }
});

/// The text without what looks like a secret.
pub fn redact(text: &str) -> Cow<'_, str> {
    let found = COMPILED.any.matches(text);
    let mut text = Cow::Borrowed(text);
    for index in &found {
        let (pattern, instead) = &COMPILED.each[index];
        if let Cow::Owned(changed) = pattern.replace_all(&text, *instead) {
            text = Cow::Owned(changed);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_and_nothing_around_it() {
        let jwt = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl";
        let table = [
            (format!("see {jwt}!"), "see [redacted]!"),
            (format!("[{}]", &jwt[..37]), "[[redacted]]"),
            ("a sk-proj-0123456789abcdefghij b".into(), "a [redacted] b"),
            ("sk_live_0123456789abcdefghij".into(), "[redacted]"),
            ("mcpgw_k7f_s3cr3t-_x, then".into(), "[redacted], then"),
            (format!("mcpgwj_a_b.{}", "0f".repeat(32)), "[redacted]"),
            ("ghp_0123456789abcdefghijABCDEFGHIJ123456".into(), "[redacted]"),
            ("xoxb-123456789012-abcdef".into(), "[redacted]"),
            ("id AKIAIOSFODNN7EXAMPLE.".into(), "id [redacted]."),
            ("Bearer abcdefgh12345".into(), "Bearer [redacted]"),
            ("a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----\nb".into(), "a\n[redacted]\nb"),
            ("-----BEGIN PRIVATE KEY-----\nMHcCAQ".into(), "[redacted]"),
            ("db://ada:pw@host/x".into(), "db://[redacted]@host/x"),
            ("Cookie: a=b; c=d\nHost: h".into(), "Cookie: [redacted]\nHost: h"),
            ("password=hunter2&user=ada".into(), "password=[redacted]&user=ada"),
            (r#"{"api_key": "x y", "n": 1}"#.into(), r#"{"api_key": [redacted], "n": 1}"#),
            (r#"{\"client_secret\":\"x\",\"n\":1}"#.into(), r#"{\"client_secret\":[redacted],\"n\":1}"#),
            ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG".into(), "aws_secret_access_key = [redacted]"),
        ];
        for (given, left) in table {
            assert_eq!(redact(&given), left, "{given}");
        }
    }

    #[test]
    fn plain_words_stay() {
        for text in [
            "",
            "the token bucket of Ada",
            "sk-8 is a board",
            "bearer of news",
            "a basic example",
            "https://h/p?q=1",
            "eyJ",
            "keep: it",
        ] {
            assert!(matches!(redact(text), Cow::Borrowed(_)), "{text}: {}", redact(text));
        }
    }
}
