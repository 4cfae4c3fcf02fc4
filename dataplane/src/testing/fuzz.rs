//! What is checked for any bytes at all, one function a fuzz target: each panics where a promise does not hold.
//! The programs in `fuzz/` call them with what libFuzzer makes up; the test here calls them with the corpora that are committed, so that
//! whatever was found once is looked for in every run.

mod frames;
mod message;
mod seal;
mod server_message;
mod stream;
mod websocket;

pub use frames::spool_frame;
pub use message::scan;
pub use seal::session_token;
pub use server_message::server_message;
pub use stream::sse;
pub use websocket::websocket;

/// Every target by the name of its program and its corpus.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("scan", scan),
    ("server_message", server_message),
    ("session_token", session_token),
    ("spool_frame", spool_frame),
    ("sse", sse),
    ("websocket", websocket),
];

/// The first byte as a small number, and the rest; input that is too short is all zeros.
fn first(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::TARGETS;

    #[test]
    fn every_corpus_is_replayed() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let kept: BTreeSet<_> = fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(kept, TARGETS.iter().map(|(name, _)| (*name).into()).collect(), "one corpus a target");
        for (name, run) in TARGETS {
            let mut replayed = 0;
            for entry in fs::read_dir(corpora.join(name)).unwrap() {
                let path = entry.unwrap().path();
                println!("{}", path.display()); // shown where it fails
                run(&fs::read(&path).unwrap());
                replayed += 1;
            }
            assert!(replayed >= 5, "{name}: {replayed} inputs");
            run(&[]);
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let manifest = include_str!("../../../fuzz/Cargo.toml");
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
