//! Labels of nodes: what rollouts choose by. The rules are those that Kubernetes has for its own, so that they can be taken over.
//!
//! Pure. Called by `api`; `store` keeps them as they are.

use std::collections::BTreeMap;

use super::rules::Rules;

/// Values by key.
pub type Labels = BTreeMap<String, String>;

const MOST: usize = 32;
const LONGEST_NAME: usize = 63;
const LONGEST_PREFIX: usize = 253;

/// Notes what is wrong with labels.
pub fn judge(rules: &mut Rules, field: &str, labels: &Labels) {
    rules.expect(labels.len() <= MOST, field, format!("expected at most {MOST} labels, found {}", labels.len()));
    for (key, value) in labels.iter().take(MOST) {
        let expected = format!(
            "{key:?}: expected a name, or a DNS name, a slash and a name; a name has 1 to {LONGEST_NAME} characters of A-Z, a-z, 0-9, -, _ \
             and ., with a letter or digit at both ends"
        );
        rules.expect(is_key(key), field, expected);
        let expected = format!("{key:?}: expected a value that is empty, or like a name, found {value:?}");
        rules.expect(value.is_empty() || is_name(value), field, expected);
    }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(text: &str) -> bool {
    let ends = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    ends && text.len() <= LONGEST_NAME && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A DNS subdomain (RFC 1123), in lower case.
fn is_prefix(text: &str) -> bool {
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().is_some_and(|b| lower(*b)) && bytes.last().is_some_and(|b| lower(*b));
        ends && bytes.len() <= LONGEST_NAME && bytes.iter().all(|b| lower(*b) || *b == b'-')
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(key: &str, value: &str) -> bool {
        let mut rules = Rules::default();
        judge(&mut rules, "labels", &Labels::from([(key.to_owned(), value.to_owned())]));
        rules.check().is_ok()
    }

    #[test]
    fn keys_and_values_are_those_of_kubernetes() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        for (key, value) in [("zone", "eu-1a"), ("topology.kubernetes.io/zone", "B"), ("a", ""), ("A_b.c-9", "9"), (&long, &long)]
        {
            assert!(fits(key, value), "{key}={value}");
        }
        let dotted = format!("{}a/x", "a.".repeat(127));
        for key in ["", "-a", "a-", "a b", "/a", "a/", "a/b/c", "Up.example/a", "a..b/c", "ä", "a*", "a=b", &longer, &dotted] {
            assert!(!fits(key, "x"), "{key}");
        }
        for value in ["-", "a ", "a/b", "a\n", "é", &longer] {
            assert!(!fits("k", value), "{value}");
        }
    }

    #[test]
    fn there_are_at_most_32() {
        let labels = |count: u32| (0..count).map(|n| (format!("k{n}"), String::new())).collect::<Labels>();
        for (count, fits) in [(32, true), (33, false)] {
            let mut rules = Rules::default();
            judge(&mut rules, "labels", &labels(count));
            assert_eq!(rules.check().is_ok(), fits, "{count}");
        }
    }
}
