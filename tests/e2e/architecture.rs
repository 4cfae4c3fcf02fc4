//! The walks of `docs/ARCHITECTURE.md` stay true: each named file and function exists, and calls come in the walk's order.
//!
//! A walk is a nested numbered list under a heading that starts with `Walk`. An item begins with `` `file` `function` ``. An item's
//! function is called in the body of the item above it that is indented less, after its earlier siblings; an item that starts with `⇢` is
//! reached by a message (a socket, a channel, a file) instead of a call, so only its existence is checked.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_api_reference_is_what_the_protos_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/API.md");
    let written = fs::read_to_string(path).expect("docs/API.md");
    assert!(written == mcpgw_tests::reference::markdown(), "docs/API.md is behind proto/: run `make doc`");
}

struct Step {
    line: usize,
    indent: usize,
    called: bool,
    file: PathBuf,
    function: String,
}

#[test]
fn walks_name_what_exists_in_the_order_of_the_calls() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a member of the workspace");
    let text = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    let walks = read_walks(&text);
    assert!(walks.len() >= 2 && walks.iter().all(|walk| walk.len() >= 10), "two walks of at least ten steps are expected");
    let faults: Vec<String> = walks.iter().flat_map(|walk| check(root, walk)).collect();
    assert!(faults.is_empty(), "docs/ARCHITECTURE.md:\n{}", faults.join("\n"));
}

fn read_walks(text: &str) -> Vec<Vec<Step>> {
    let mut walks: Vec<Vec<Step>> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim_start().starts_with("Walk");
            walks.extend(inside.then(Vec::new));
        } else if let (true, Some(step)) = (inside, read_step(number + 1, line)) {
            walks.last_mut().expect("a heading opened it").push(step);
        }
    }
    walks
}

/// `   2. ⇢ `file` `function`: text`.
fn read_step(number: usize, line: &str) -> Option<Step> {
    let indent = line.len() - line.trim_start().len();
    let (ordinal, rest) = line.trim_start().split_once(". ")?;
    ordinal.parse::<u32>().ok()?;
    let called = !rest.starts_with('⇢');
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let (file, function) = (quoted.next()?, quoted.next()?);
    Some(Step { line: number, indent, called, file: file.into(), function: function.to_owned() })
}

fn check(root: &Path, walk: &[Step]) -> Vec<String> {
    let mut faults = Vec::new();
    let bodies: Vec<Option<String>> = walk.iter().map(|step| body_of(root, step)).collect();
    for (index, step) in walk.iter().enumerate() {
        if bodies[index].is_none() {
            faults.push(format!("line {}: {} has no function `{}`", step.line, step.file.display(), step.function));
            continue;
        }
        let parent = walk[..index].iter().rposition(|earlier| earlier.indent < step.indent);
        let Some(parent) = parent.filter(|_| step.called) else { continue };
        let Some(body) = &bodies[parent] else { continue };
        let sibling =
            walk[..index].iter().rev().take_while(|s| s.indent >= step.indent).find(|s| s.indent == step.indent && s.called);
        let after = sibling.and_then(|sibling| call_of(body, &sibling.function, 0)).map_or(0, |place| place + 1);
        if call_of(body, &step.function, after).is_none() {
            let caller = &walk[parent];
            faults.push(format!(
                "line {}: `{}` in {} does not call `{}` at that place in the order",
                step.line,
                caller.function,
                caller.file.display(),
                step.function
            ));
        }
    }
    faults
}

/// The text of a function from its name to its closing brace.
fn body_of(root: &Path, step: &Step) -> Option<String> {
    let source = fs::read_to_string(root.join(&step.file)).ok()?;
    let start = source.match_indices(&format!("fn {}", step.function)).map(|(place, _)| place).find(|place| {
        let next = source[place + 3 + step.function.len()..].chars().next();
        matches!(next, Some('(' | '<'))
    })?;
    let mut depth = 0_i32;
    for (offset, character) in source[start..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(source[start..start + offset].to_owned()),
            '}' => depth -= 1,
            ';' if depth == 0 => return None, // a declaration without a body
            _ => {}
        }
    }
    None
}

/// Where `function` is called, from `after` on: as a word followed by an opening parenthesis, or passed by path.
fn call_of(body: &str, function: &str, after: usize) -> Option<usize> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let body_start = body.find('{').unwrap_or(0);
    body.match_indices(function).map(|(place, _)| place).filter(|place| *place >= after.max(body_start)).find(|place| {
        let before = body[..*place].chars().next_back();
        let behind = body[place + function.len()..].chars().next();
        !before.is_some_and(is_word) && !behind.is_some_and(is_word)
    })
}
