//! What of calls an organisation has kept beside their records, and what is taken out of it at whose place. Pure.
//!
//! Says which places of a JSON value are secret by the organisation's rules; what looks like a secret, and taking it out, is the node's.

use super::Problem;
use crate::proto::config::v1 as wire;

/// Of each payload, where the organisation says nothing.
pub const DEFAULT_BYTES: u32 = 16 << 10;
/// A frame with it has to fit the spool.
pub const MOST_BYTES: u32 = 64 << 10;
/// As long as payloads are kept where the organisation says nothing.
pub const DEFAULT_DAYS: u32 = 7;
const MOST_DAYS: u32 = 365;
const MOST_RULES: usize = 64;
const LONGEST_RULE: usize = 256;

/// What is kept, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    pub arguments: bool,
    pub results: bool,
    pub max_bytes: usize,
    rules: Vec<Rule>,
}

/// What is taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// The values of all keys of this name; lower case.
    Named(String),
    Path(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Any,
    /// Any number of steps.
    Deep,
}

/// A step from a JSON value to one within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Key(String),
    Index(usize),
}

impl Capture {
    /// Of settings that [`check`] found no fault with; none: they keep nothing.
    #[must_use]
    pub fn of(given: &wire::Capture) -> Option<Self> {
        let max_bytes = if given.max_bytes == 0 { DEFAULT_BYTES } else { given.max_bytes };
        (given.arguments || given.results).then(|| Self {
            arguments: given.arguments,
            results: given.results,
            max_bytes: max_bytes as usize,
            rules: given.redact.iter().filter_map(|rule| Rule::read(rule).ok()).collect(),
        })
    }

    /// Whether the organisation has what is at this place taken out.
    #[must_use]
    pub fn hides(&self, place: &[Place]) -> bool {
        self.rules.iter().any(|rule| match rule {
            Rule::Named(name) => matches!(place.last(), Some(Place::Key(key)) if key.to_lowercase() == *name),
            Rule::Path(steps) => leads(steps, place),
        })
    }
}

/// What is wrong with the settings of an organisation.
pub(super) fn check(resource: &str, given: &wire::Capture, problems: &mut Vec<Problem>) {
    let mut expect = |holds: bool, field: &str, expected: &'static str| {
        if !holds {
            problems.push(Problem::InvalidCapture { resource: resource.to_owned(), field: field.to_owned(), expected });
        }
    };
    expect(given.max_bytes <= MOST_BYTES, "max_bytes", "expected at most 65536, or 0 for 16384");
    expect(given.retention_days <= MOST_DAYS, "retention_days", "expected 1 to 365, or 0 for 7");
    expect(given.redact.len() <= MOST_RULES, "redact", "expected at most 64 names and paths");
    for (index, rule) in given.redact.iter().enumerate() {
        if let Err(expected) = Rule::read(rule) {
            expect(false, &format!("redact[{index}]"), expected);
        }
    }
}

impl Rule {
    fn read(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > LONGEST_RULE || text.chars().any(char::is_control) {
            return Err("expected 1 to 256 bytes without control characters");
        }
        match text.strip_prefix('$') {
            Some(path) => steps(path).map(Self::Path),
            None if text.contains(['.', '[', ']', '*']) => Err("expected a path to begin with $, such as $.customer.name"),
            None => Ok(Self::Named(text.to_lowercase())),
        }
    }
}

/// A subset of RFC 9535: names, indices, wildcards and descendants.
fn steps(mut path: &str) -> Result<Vec<Step>, &'static str> {
    const SHAPE: &str = "expected a path of .name, ..name, .*, ['name'], [0] and [*]";
    let mut steps = Vec::new();
    while !path.is_empty() {
        if let Some(rest) = path.strip_prefix("..") {
            steps.push(Step::Deep);
            path = rest;
            if path.starts_with('[') {
                continue;
            }
        } else if let Some(rest) = path.strip_prefix('.') {
            path = rest;
        } else if let Some(rest) = path.strip_prefix('[') {
            let (step, rest) = bracket(rest).ok_or(SHAPE)?;
            steps.push(step);
            path = rest;
            continue;
        } else {
            return Err(SHAPE);
        }
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let (name, rest) = path.split_at(end);
        match name {
            "" => return Err(SHAPE),
            "*" => steps.push(Step::Any),
            name if name.contains(['*', ']']) => return Err(SHAPE),
            name => steps.push(Step::Key(name.to_owned())),
        }
        path = rest;
    }
    if steps.last().is_none_or(|last| *last == Step::Deep) { Err(SHAPE) } else { Ok(steps) }
}

/// What is in brackets, and what is behind them.
fn bracket(text: &str) -> Option<(Step, &str)> {
    for quote in ['\'', '"'] {
        if let Some(rest) = text.strip_prefix(quote) {
            let (name, rest) = rest.split_once(quote)?;
            return Some((Step::Key(name.to_owned()), rest.strip_prefix(']')?));
        }
    }
    let (inner, rest) = text.split_once(']')?;
    let step = if inner == "*" { Step::Any } else { Step::Index(inner.parse().ok()?) };
    Some((step, rest))
}

/// Whether the steps lead exactly there. All ways at once, so that it takes no longer where there are many.
fn leads(steps: &[Step], place: &[Place]) -> bool {
    let mut reached = vec![false; steps.len() + 1];
    reached[0] = true;
    for at in place {
        pass_deep(steps, &mut reached);
        let mut next = vec![false; reached.len()];
        for (number, step) in steps.iter().enumerate().filter(|(number, _)| reached[*number]) {
            match (step, at) {
                (Step::Deep, _) => next[number] = true,
                (Step::Key(name), Place::Key(key)) => next[number + 1] |= name == key,
                (Step::Index(wanted), Place::Index(index)) => next[number + 1] |= wanted == index,
                (Step::Any, _) => next[number + 1] = true,
                (Step::Key(_), Place::Index(_)) | (Step::Index(_), Place::Key(_)) => {}
            }
        }
        reached = next;
    }
    pass_deep(steps, &mut reached);
    reached[steps.len()]
}

/// Any number of steps may be none.
fn pass_deep(steps: &[Step], reached: &mut [bool]) {
    for (number, step) in steps.iter().enumerate() {
        if reached[number] && *step == Step::Deep {
            reached[number + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(rules: &[&str]) -> Capture {
        let redact = rules.iter().map(|rule| (*rule).to_owned()).collect();
        Capture::of(&wire::Capture { arguments: true, redact, ..wire::Capture::default() }).unwrap()
    }

    fn place(text: &str) -> Vec<Place> {
        let step = |part: &str| part.parse().map_or_else(|_| Place::Key(part.to_owned()), Place::Index);
        text.split('/').filter(|part| !part.is_empty()).map(step).collect()
    }

    #[test]
    fn rules_hide_what_they_name_and_nothing_else() {
        let table = [
            ("ssn", &["ssn", "a/0/SSN"][..], &["ssn/deeper", "assn", ""][..]),
            ("$.a.b", &["a/b"], &["b", "a", "a/b/c", "x/a/b", "a/B"]),
            ("$.cards[*].number", &["cards/0/number", "cards/17/number"], &["cards/number", "cards/0/name"]),
            ("$.cards[1]", &["cards/1"], &["cards/0", "cards"]),
            ("$..iban", &["iban", "a/iban", "a/0/b/iban"], &["iban/x"]),
            ("$.a..b.*", &["a/b/x", "a/q/b/0"], &["a/b", "b/x"]),
            ("$['a.b']", &["a.b"], &["a/b"]),
            ("$[\"x\"][*]", &["x/0", "x/y"], &["x"]),
            ("$..[0]", &["0", "a/0"], &["a/1"]),
        ];
        for (rule, hidden, shown) in table {
            let capture = capture(&[rule]);
            hidden.iter().for_each(|it| assert!(capture.hides(&place(it)), "{rule} hides {it}"));
            shown.iter().for_each(|it| assert!(!capture.hides(&place(it)), "{rule} shows {it}"));
        }
    }

    #[test]
    fn what_is_no_rule_or_too_much_is_said_by_its_field() {
        let long = "x".repeat(257);
        let wrong = ["", "$", "$.", "$..", "a.b", "$a", "$.a[", "$.a[x]", "$.a['b]", "$.a*b", "$.a]", "a\nb", &long];
        let redact: Vec<String> = wrong.iter().map(|rule| (*rule).to_owned()).collect();
        let given = wire::Capture { max_bytes: MOST_BYTES + 1, retention_days: 366, redact, ..wire::Capture::default() };
        let mut problems = Vec::new();
        check("org/a", &given, &mut problems);
        assert_eq!(problems.len(), wrong.len() + 2, "{problems:#?}");
        assert!(problems[2].to_string().starts_with("org/a: capture.redact[0]: expected"), "{}", problems[2]);
        let mut fine = Vec::new();
        check("org/a", &wire::Capture { max_bytes: MOST_BYTES, retention_days: 365, ..wire::Capture::default() }, &mut fine);
        assert_eq!(fine, []);
    }

    #[test]
    fn what_keeps_nothing_is_nothing() {
        assert_eq!(Capture::of(&wire::Capture { max_bytes: 5, ..wire::Capture::default() }), None);
        assert_eq!(capture(&[]).max_bytes, DEFAULT_BYTES as usize);
    }
}
