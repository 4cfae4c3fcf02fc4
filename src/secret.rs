//! Names that tell that what they name is secret, wherever they stand: keys of JSON, parameters of URLs. Pure.
//!
//! The control plane refuses what it would have to keep in clear text, a node takes it out of what is kept.

/// Parts of names, without what is between their words.
const WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "cookie",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "clientkey",
    "credential",
    "signature",
];
/// Whole names, which are parts of harmless ones.
const NAMES: [&str; 8] = ["pwd", "pass", "pin", "otp", "auth", "jwt", "sig", "sas"];

/// Whether what has this name is secret, whatever it is.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    WORDS.iter().any(|word| plain.contains(word)) || NAMES.contains(&plain.as_str())
}

/// The first parameter of a URL's query that is named like a secret.
#[must_use]
pub fn secret_parameter(url: &str) -> Option<&str> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    query
        .split(['&', ';'])
        .map(|pair| pair.split('=').next().unwrap_or_default())
        .find(|name| is_secret_name(name) || *name == "key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets() {
        for name in
            ["password", "Client-Secret", "x_api_key", "apiKey", "AuthToken", "set-cookie", "Authorization", "PIN", "credentials"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["text", "author", "keyboard", "monkey", "path", "passenger", "shipping", "option", "key", ""] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn parameters_of_urls_tell_secrets() {
        let table = [
            ("https://h/mcp", None),
            ("https://h/mcp?region=eu&v=1", None),
            ("https://h/token?x", None),
            ("https://h/mcp?a=1&tavilyApiKey=x", Some("tavilyApiKey")),
            ("https://h/mcp?key=x#f", Some("key")),
            ("https://h/mcp?a#token=x", None),
            ("https://h/mcp?sig", Some("sig")),
        ];
        for (url, found) in table {
            assert_eq!(secret_parameter(url), found, "{url}");
        }
    }
}
