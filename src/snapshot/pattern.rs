//! Name patterns: `*` stands for any run of characters, everything else for itself.

/// A compiled pattern. Matching is linear in the name for a bounded number of stars (greedy with one backtrack point).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    literal: usize,
}

impl Pattern {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), literal: text.find('*').unwrap_or(text.len()) }
    }

    /// Whether the pattern names exactly one thing.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.literal == self.text.len()
    }

    /// The part before the first star.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.text[..self.literal]
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.is_exact() {
            return *self.text == *name;
        }
        if self.literal + 1 == self.text.len() {
            return name.as_bytes().starts_with(self.prefix().as_bytes()); // the common `search_*`
        }
        glob(self.text.as_bytes(), name.as_bytes())
    }
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((after_star, swallowed)) = retry {
            p = after_star;
            n = swallowed + 1;
            retry = Some((after_star, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}
