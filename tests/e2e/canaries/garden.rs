//! Secrets and where each was planted, and the search for them in whatever encoding they may turn up.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rand::RngExt as _;

/// A secret's first and last so many characters are looked for alone: a shortened one is one too.
const HALF: usize = 12;

/// Which secret is where. Shared by everybody who plants.
#[derive(Default)]
pub struct Garden(Mutex<BTreeMap<String, String>>);

impl Garden {
    /// The secret of a place: the same whenever it is asked for.
    pub fn plant(&self, place: &str) -> String {
        self.0.lock().unwrap().entry(place.to_owned()).or_insert_with(random).clone()
    }

    /// A secret that something else made up.
    pub fn note(&self, place: &str, secret: &str) {
        // Keys and tokens begin with what they are; the secret is at the end.
        let tail = &secret[secret.len().saturating_sub(2 * HALF)..];
        self.0.lock().unwrap().insert(place.to_owned(), tail.to_owned());
    }

    /// Takes one out: what it was is nobody's secret.
    pub fn forget(&self, place: &str) {
        self.0.lock().unwrap().remove(place);
    }

    pub fn places(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The places whose secrets are in a text, encoded or not.
    pub fn found_in(&self, text: &[u8]) -> Vec<String> {
        let found = |needle: &str| memchr::memmem::find(text, needle.as_bytes()).is_some();
        self.needles().into_iter().filter(|(needle, _)| found(needle)).map(|(_, place)| place).collect()
    }

    /// Every file below `roots` with something planted in it: the file, and what.
    pub fn found_below(&self, roots: &[&Path]) -> Vec<String> {
        let needles = self.needles();
        let mut list = tempfile::NamedTempFile::new().unwrap();
        needles.keys().for_each(|needle| writeln!(list, "{needle}").unwrap());
        let grep = Command::new("grep")
            .env("LC_ALL", "C")
            .args(["-raoF", "-D", "skip", "-f"])
            .arg(list.path())
            .arg("--")
            .args(roots)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&grep.stderr);
        // A running Postgres deletes files meanwhile.
        let gone = errors.lines().all(|line| line.ends_with("No such file or directory"));
        assert!(gone || matches!(grep.status.code(), Some(0 | 1)), "grep: {errors}");
        let lines = String::from_utf8_lossy(&grep.stdout).into_owned();
        let mut found: Vec<String> = lines
            .lines()
            .filter_map(|line| line.rsplit_once(':'))
            .map(|(file, needle)| {
                let place = needles.get(needle).map_or("?", String::as_str);
                format!("{file}: {place}")
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    fn needles(&self) -> BTreeMap<String, String> {
        let planted = self.0.lock().unwrap();
        let halves = planted.iter().flat_map(|(place, secret)| {
            let (head, tail) = (&secret[..secret.len().min(HALF)], &secret[secret.len().saturating_sub(HALF)..]);
            [(place, head), (place, tail)]
        });
        halves.flat_map(|(place, half)| forms(half).into_iter().map(|form| (form, place.clone()))).collect()
    }
}

/// Letters and digits: what no encoding of text changes unasked.
fn random() -> String {
    let mut dice = rand::rng();
    std::iter::repeat_with(|| char::from(dice.sample(rand::distr::Alphanumeric))).take(2 * HALF).collect()
}

/// How a text may be written.
fn forms(text: &str) -> Vec<String> {
    let each = |form: fn(u8) -> String| text.bytes().map(form).collect::<String>();
    let mut forms = vec![
        text.to_owned(),
        each(|byte| format!("{byte:02x}")),
        each(|byte| format!("{byte:02X}")),
        each(|byte| format!("%{byte:02x}")),
        each(|byte| format!("%{byte:02X}")),
        each(|byte| format!("\\u{byte:04x}")),
        each(|byte| format!("\\u{byte:04X}")),
        each(|byte| format!("\\x{byte:02x}")),
    ];
    // In base64 a text looks different at each of three places; what is around it shows in the first and last characters.
    for before in 0..3 {
        for engine in [&STANDARD, &URL_SAFE] {
            let encoded = engine.encode([vec![0; before].as_slice(), text.as_bytes()].concat());
            let bare = encoded.trim_end_matches('=');
            let (first, last) = ([0, 2, 3][before], usize::from(!(before + text.len()).is_multiple_of(3)));
            forms.push(bare[first..bare.len() - last].to_owned());
        }
    }
    forms
}

#[test]
fn what_is_planted_is_found_however_it_is_written() {
    let garden = Garden::default();
    let secret = garden.plant("here");
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut written = vec![secret.clone(), format!("x{}", &secret[..HALF]), secret[HALF..].to_owned(), hex, percent];
    for around in ["", "a", "ab", "abc"] {
        written.push(STANDARD.encode(format!("{around}{secret}{around}")));
        written.push(URL_SAFE.encode(format!("{around}é{secret}é{around}")));
    }
    for text in &written {
        assert_eq!(garden.found_in(text.as_bytes()).first().map(String::as_str), Some("here"), "{text}");
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("below")).unwrap();
    for (number, text) in written.iter().enumerate() {
        std::fs::write(directory.path().join(format!("below/{number}")), [b"\0\n", text.as_bytes(), b"\n\xff"].concat()).unwrap();
    }
    assert_eq!(garden.found_below(&[directory.path()]).len(), written.len());
    garden.forget("here");
    garden.plant("elsewhere");
    assert!(garden.found_below(&[directory.path()]).is_empty());
}
