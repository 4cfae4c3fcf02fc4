//! Servers that are processes on the node: what may be started, with what in its environment.
//! Pure; called by [`super::server`] and the written form. Never starts anything, and never repeats a variable's value.

use std::sync::Arc;

use super::Problem;
use crate::proto::config::v1::{self as wire, StdioScope, UpstreamCredential};

const MOST_ARGUMENTS: usize = 64;
const LONGEST_ARGUMENT: usize = 4096;
const MOST_VARIABLES: usize = 64;
const LONGEST_NAME: usize = 200;
const LONGEST_VALUE: usize = 32 << 10;

/// A process that speaks MCP over its standard input and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stdio {
    /// The argument vector, at least the program.
    pub command: Arc<[String]>,
    /// Names and values, sorted by name.
    pub environment: Vec<(String, String)>,
    /// Where it is started; `None`: the node's default.
    pub directory: Option<String>,
    /// One process for all sessions of the organisation on a node, in place of one per session.
    pub shared: bool,
}

impl Stdio {
    /// From what [`check`] found no fault with.
    pub(super) fn of(given: &wire::Stdio) -> Self {
        Self {
            command: given.command.as_slice().into(),
            environment: given.environment.iter().map(|it| (it.name.clone(), it.value.clone())).collect(),
            directory: (!given.directory.is_empty()).then(|| given.directory.clone()),
            shared: match given.scope() {
                StdioScope::Shared => true,
                StdioScope::Session | StdioScope::Unspecified => false,
            },
        }
    }
}

pub(super) fn check(server: &str, given: &wire::Stdio, problems: &mut Vec<Problem>) {
    let mut expect = |holds: bool, field: String, expected: &str| {
        if !holds {
            problems.push(Problem::InvalidServer { server: server.to_owned(), field, expected: expected.to_owned() });
        }
    };
    let counted = (1..=MOST_ARGUMENTS).contains(&given.command.len());
    expect(counted, "stdio.command".into(), "expected 1 to 64 arguments, the program first");
    for (index, argument) in given.command.iter().enumerate().take(MOST_ARGUMENTS) {
        let fits = argument.len() <= LONGEST_ARGUMENT && !argument.contains('\0');
        expect(fits, format!("stdio.command[{index}]"), "expected at most 4096 bytes and no NUL");
    }
    if let Some(program) = given.command.first() {
        let expected = "expected an absolute path, or the name of a program in PATH";
        expect(is_program(program), "stdio.command[0]".into(), expected);
    }
    let many = given.environment.len() > MOST_VARIABLES;
    expect(!many, "stdio.environment".into(), "expected at most 64 variables");
    for (index, variable) in given.environment.iter().enumerate().take(MOST_VARIABLES) {
        let at = |field: &str| format!("stdio.environment[{index}].{field}");
        if let Err(expected) = variable_name(&variable.name) {
            expect(false, at("name"), expected);
        }
        if let Err(expected) = variable_value(&variable.name, &variable.value) {
            expect(false, at("value"), expected);
        }
    }
    for (index, pair) in given.environment.windows(2).enumerate().take(MOST_VARIABLES) {
        let expected = "expected variables sorted by name, each once";
        expect(pair[0].name < pair[1].name, format!("stdio.environment[{}].name", index + 1), expected);
    }
    let fits = given.directory.is_empty() || is_directory(&given.directory);
    expect(fits, "stdio.directory".into(), "expected an absolute path of at most 4096 bytes without NUL, or nothing");
    expect(StdioScope::try_from(given.scope).is_ok(), "stdio.scope".into(), "expected SESSION or SHARED, or nothing");
}

fn is_program(text: &str) -> bool {
    !text.is_empty() && !text.ends_with('/') && (text.starts_with('/') || !text.contains('/'))
}

fn is_directory(text: &str) -> bool {
    text.starts_with('/') && text.len() <= LONGEST_ARGUMENT && !text.contains('\0')
}

/// Whether a registered process may have a variable of this name; or what is expected instead.
pub fn variable_name(name: &str) -> Result<(), &'static str> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    if !first || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || name.len() > LONGEST_NAME {
        return Err("expected at most 200 characters of A-Z, a-z, 0-9 and underscore that do not start with a digit");
    }
    // With these a program is another one than its name says.
    if name.starts_with("LD_") || ["GLIBC_TUNABLES", "GCONV_PATH"].contains(&name) {
        return Err("expected no variable of the dynamic loader or the C library: they change which code a program runs");
    }
    if name.starts_with("MCPGW_") {
        return Err("expected no variable of the gateway's own: MCPGW_ is its prefix");
    }
    Ok(())
}

/// Whether a variable may have this value; or what is expected, without saying what was found.
pub fn variable_value(name: &str, value: &str) -> Result<(), &'static str> {
    if value.len() > LONGEST_VALUE || value.contains('\0') {
        return Err("expected at most 32768 bytes and no NUL");
    }
    if name == "PATH" && !value.split(':').all(|entry| entry.starts_with('/')) {
        return Err("expected absolute paths with colons between them");
    }
    Ok(())
}

/// What is wrong with a credential that becomes a variable.
pub(super) fn unfit_variable(credential: &UpstreamCredential) -> Option<&'static str> {
    if variable_name(&credential.header).is_err() {
        return Some("header: the name of an environment variable is expected");
    }
    variable_value(&credential.header, &credential.value).err().map(|_found| "value: the value of a variable is expected")
}
