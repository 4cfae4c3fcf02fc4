//! What is expected of texts and lists that people make up: violations by field, all at once.
//!
//! What nodes expect too is not here but in the contract's `check_org`, which the change transaction runs.

use super::{Role, Violation, config, role_name};

const MOST_NAMES: usize = 100;
const LONGEST_NAME: usize = 100;
const LONGEST_DISPLAY_NAME: usize = 200;
const MOST_TEXTS: usize = 500;
const LONGEST_TEXT: usize = 200;
const LONGEST_EMAIL: usize = 254;
const LONGEST_ADDRESS: usize = 261;

/// Collects violations.
#[derive(Debug, Default)]
pub struct Rules(Vec<Violation>);

impl Rules {
    /// Notes a violation unless `holds`.
    pub fn expect(&mut self, holds: bool, field: &str, expected: impl Into<String>) -> &mut Self {
        if !holds {
            self.0.push(Violation::new(field, expected));
        }
        self
    }

    /// A name for people.
    pub fn display_name(&mut self, field: &str, text: &str) -> &mut Self {
        let fits = text.chars().count() <= LONGEST_DISPLAY_NAME && !text.chars().any(char::is_control);
        self.expect(fits, field, format!("expected at most {LONGEST_DISPLAY_NAME} characters, none of them a control character"))
    }

    /// An email address, as far as one can tell without sending mail.
    pub fn email(&mut self, field: &str, text: &str) -> &mut Self {
        let parts = text.split_once('@');
        let plain = text.len() <= LONGEST_EMAIL && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let fits = plain && parts.is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'));
        self.expect(fits, field, "expected an email address")
    }

    /// Role names that policies make up: never those that the administration goes by.
    pub fn policy_roles(&mut self, field: &str, names: &[String]) -> &mut Self {
        let reserved = |name: &&String| {
            let roles = [Role::Owner, Role::Admin, Role::Operator, Role::Auditor, Role::Member, Role::ServiceAccount];
            roles.iter().any(|role| role_name(*role).eq_ignore_ascii_case(name))
        };
        for name in names.iter().filter(reserved) {
            self.0
                .push(Violation::new(field, format!("expected a name that is not a role of the administration, found {name:?}")));
        }
        self.names(field, names)
    }

    /// Names of roles or groups.
    pub fn names(&mut self, field: &str, names: &[String]) -> &mut Self {
        self.expect(names.len() <= MOST_NAMES, field, format!("expected at most {MOST_NAMES} names"));
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '*';
        let fits = |name: &String| !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(plain);
        let wrong = names.iter().position(|name| !fits(name));
        if let Some(index) = wrong {
            let expected = format!("expected 1 to {LONGEST_NAME} bytes without white space, control characters and *");
            self.0.push(Violation::new(format!("{field}[{index}]"), expected));
        }
        self
    }

    /// Names that others make up, in whatever form those take: only that they are text, and how much of it.
    pub fn texts(&mut self, field: &str, texts: &[String]) -> &mut Self {
        self.expect(texts.len() <= MOST_TEXTS, field, format!("expected at most {MOST_TEXTS}, found {}", texts.len()));
        for (index, text) in texts.iter().enumerate().take(MOST_TEXTS) {
            let fits = (1..=LONGEST_TEXT).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            let expected = format!("expected 1 to {LONGEST_TEXT} characters, none of them a control character");
            self.expect(fits, &format!("{field}[{index}]"), expected);
        }
        self
    }

    /// Whom something is about.
    pub fn subjects(&mut self, field: &str, given: &config::Subjects) -> &mut Self {
        self.texts(&format!("{field}.roles"), &given.roles)
            .texts(&format!("{field}.groups"), &given.groups)
            .texts(&format!("{field}.users"), &given.users)
            .texts(&format!("{field}.api_keys"), &given.api_keys)
    }

    /// What something is about. Whether a pattern is one is judged where nodes judge it; here only that it is text.
    pub fn patterns(&mut self, field: &str, given: &config::Match) -> &mut Self {
        let patterns =
            [("tools", &given.tools), ("prompts", &given.prompts), ("resources", &given.resources), ("methods", &given.methods)];
        for (kind, patterns) in patterns {
            for (index, pattern) in patterns.iter().enumerate() {
                self.plain(&format!("{field}.{kind}[{index}]"), pattern);
            }
        }
        self
    }

    /// A text without control characters.
    pub fn plain(&mut self, field: &str, text: &str) -> &mut Self {
        self.expect(!text.chars().any(char::is_control), field, "expected no control characters")
    }

    /// The number of a value of an enum.
    pub fn known<E: TryFrom<i32>>(&mut self, field: &str, number: i32) -> &mut Self {
        self.expect(E::try_from(number).is_ok(), field, format!("{number} is not a value that this version knows"))
    }

    /// Adds what was found elsewhere.
    pub fn also(&mut self, violation: Option<Violation>) -> &mut Self {
        self.0.extend(violation);
        self
    }

    /// The violations, if any.
    pub fn check(&mut self) -> Result<(), Vec<Violation>> {
        if self.0.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.0)) }
    }
}

/// Whether a text is `host:port`, as one node gives it to others.
pub fn is_host_port(text: &str) -> bool {
    let authority = text.parse::<http::uri::Authority>().ok();
    let named =
        |authority: &http::uri::Authority| !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port > 0);
    text.len() <= LONGEST_ADDRESS && !text.contains('@') && authority.is_some_and(|authority| named(&authority))
}

/// Sorted, each once: the order in which somebody typed them means nothing.
pub fn set(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(rules: &mut Rules) -> Vec<String> {
        rules.check().err().unwrap_or_default().into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn a_policy_role_cannot_pass_for_a_role_of_the_administration() {
        for name in ["owner", "Admin", "OPERATOR", "auditor", "member", "service_account", "*", "", "a b"] {
            assert_eq!(fields(Rules::default().policy_roles("r", &[name.to_owned()])).len(), 1, "{name}");
        }
        assert!(fields(Rules::default().policy_roles("r", &["engineer".to_owned()])).is_empty());
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["10.0.0.7:7500", "node-7.edge.example:1", "[::1]:7500"] {
            assert!(is_host_port(good), "{good}");
        }
        let long = format!("{}:1", "a".repeat(300));
        for wrong in ["", "host", ":7500", "host:0", "host:70000", "a@host:1", "http://host:1", "host:1/", "ho st:1", &long] {
            assert!(!is_host_port(wrong), "{wrong}");
        }
    }

    #[test]
    fn email_addresses_have_two_sides() {
        for wrong in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\n"] {
            assert_eq!(fields(Rules::default().email("e", wrong)), ["e"], "{wrong}");
        }
        assert!(fields(Rules::default().email("e", "a@localhost")).is_empty());
    }
}
