//! What is expected of the plain fields that several nouns have: display names, lists of names, enums. Pure.

use crate::domain::Violation;

const LONGEST_DISPLAY_NAME: usize = 200;
const LONGEST_NAME: usize = 200;
const MOST_NAMES: usize = 500;

/// A name for people, as given.
pub fn display_name(field: &str, given: &str, found: &mut Vec<Violation>) -> String {
    if given.chars().count() > LONGEST_DISPLAY_NAME || given.chars().any(char::is_control) {
        let expected = format!("expected at most {LONGEST_DISPLAY_NAME} characters, none of them a control character");
        found.push(Violation::new(field, expected));
    }
    given.to_owned()
}

/// The number of an enum's value, as given.
pub fn known<E: TryFrom<i32>>(field: &str, given: i32, found: &mut Vec<Violation>) -> i32 {
    if E::try_from(given).is_err() {
        found.push(Violation::new(field, format!("{given} is not a value that this version knows")));
    }
    given
}

/// Names of roles, groups and the like, as given.
pub fn names(field: &str, given: &[String], found: &mut Vec<Violation>) -> Vec<String> {
    if given.len() > MOST_NAMES {
        found.push(Violation::new(field, format!("expected at most {MOST_NAMES}, found {}", given.len())));
        return Vec::new();
    }
    for (index, name) in given.iter().enumerate() {
        let fits = (1..=LONGEST_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if !fits {
            let expected = format!("expected 1 to {LONGEST_NAME} characters, none of them a control character");
            found.push(Violation::new(format!("{field}[{index}]"), expected));
        }
    }
    given.to_vec()
}
