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
    let plain = plain(name);
    WORDS.iter().any(|word| plain.contains(word)) || NAMES.contains(&plain.as_str())
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
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

/// Whether an environment variable is secret: named like one, unless its value can be no secret, being a number or a switch.
#[must_use]
pub fn is_secret_variable(name: &str, value: &str) -> bool {
    let number = value.len() <= 9 && value.bytes().all(|byte| byte.is_ascii_digit()) && !NAMES.contains(&plain(name).as_str());
    let harmless = number || ["true", "false"].iter().any(|switch| value.eq_ignore_ascii_case(switch));
    is_secret_name(name) && !harmless
}

/// What in an argument of a command is secret: the option that is named like a secret and has a value in the same argument, unless that is
/// where the secret lies; or the parameter of a URL.
#[must_use]
pub fn secret_argument(argument: &str) -> Option<&str> {
    let option = argument.starts_with('-').then(|| argument.split_once('=')).flatten();
    let named = option.map(|(name, value)| (name.trim_start_matches('-'), value));
    let elsewhere = |name: &str| ["file", "path", "env", "dir"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    let secret = named.filter(|(name, value)| !elsewhere(name) && is_secret_variable(name, value));
    secret.map(|(name, _)| name).or_else(|| argument.contains("://").then(|| secret_parameter(argument)).flatten())
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

    #[test]
    fn variables_and_arguments_tell_secrets() {
        for (name, value, secret) in [
            ("GITHUB_TOKEN", "ghp_x", true),
            ("API_KEY", "1234567890", true),
            ("PIN", "1234", true),
            ("MAX_TOKENS", "4096", false),
            ("TOKENIZERS_PARALLELISM", "false", false),
            ("TZ", "UTC", false),
        ] {
            assert_eq!(is_secret_variable(name, value), secret, "{name}={value}");
        }
        for (argument, secret) in [
            ("--api-key=x", Some("api-key")),
            ("--token-file=/run/token", None),
            ("--max-tokens=4096", None),
            ("--token", None),
            ("token=x", None),
            ("https://h/mcp?token=x", Some("token")),
            ("--url=https://h/mcp?token=x", Some("token")),
        ] {
            assert_eq!(secret_argument(argument), secret, "{argument}");
        }
    }
}
