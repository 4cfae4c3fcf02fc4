//! What earlier runs left on disk: finds their lanes, cuts a torn tail off each lane's newest segment, and only there.
//! Damage elsewhere stays as it is, for the reader to report.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use uuid::Uuid;

use super::lane::{Lane, LaneId, first_seq};
use crate::audit::frame::{self, Found};

type Failure = (PathBuf, io::Error);

/// Every lane with frames below `spool`; adds their sizes to `bytes`.
pub(super) fn earlier_runs(spool: &Path, bytes: &AtomicU64) -> Result<Vec<Arc<Lane>>, Failure> {
    let mut lanes = Vec::new();
    for (boot, boot_dir) in children(spool, |name| Uuid::parse_str(name).ok())? {
        for (number, dir) in children(&boot_dir, |name| name.parse().ok())? {
            let id = LaneId { boot, number };
            match lane(id, dir.clone(), bytes).map_err(|error| (dir.clone(), error))? {
                Some(lane) => lanes.push(Arc::new(lane)),
                None => drop(fs::remove_dir(&dir)), // empty: only tidiness
            }
        }
        drop(fs::remove_dir(&boot_dir)); // only if empty
    }
    Ok(lanes)
}

fn lane(id: LaneId, dir: PathBuf, bytes: &AtomicU64) -> io::Result<Option<Lane>> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if let Some(first) = first_seq(&path) {
            segments.insert(first, path);
        }
    }
    let mut written = 0;
    // A tail that was torn off whole leaves an empty segment; then the one before it is the newest.
    while let Some((first, path)) = segments.last_key_value() {
        written = cut_torn_tail(path, *first)?;
        if written >= *first {
            break;
        }
        fs::remove_file(path)?;
        segments.pop_last();
    }
    for path in segments.values() {
        bytes.fetch_add(fs::metadata(path)?.len(), Relaxed);
    }
    Ok((!segments.is_empty()).then(|| Lane::found(id, dir, segments, written)))
}

/// Cuts what follows the last good frame, unless good frames follow it again: that is damage, not a tear.
/// Returns the last sequence number in the segment.
fn cut_torn_tail(path: &Path, first: u64) -> io::Result<u64> {
    let content = fs::read(path)?;
    let (mut at, mut last) = (0, first - 1);
    loop {
        match frame::decode(&content[at..]) {
            Found::Frame(frame, size) if frame.seq > last => {
                last = frame.seq;
                at += size;
            }
            Found::End => return Ok(last),
            // A whole frame that repeats or goes back is as little of this lane as one that is broken.
            Found::Frame(..) | Found::Cut { .. } | Found::Damaged(_) => match frame::resume(&content[at..], last) {
                Some(skipped) => at += skipped,
                None => break,
            },
        }
    }
    tracing::warn!(path = %path.display(), kept.bytes = at, cut.bytes = content.len() - at, "cut the torn tail of an audit segment");
    OpenOptions::new().write(true).open(path)?.set_len(at as u64)?;
    Ok(last)
}

/// Directories below `dir` whose name means something.
fn children<T>(dir: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<(T, PathBuf)>, Failure> {
    let failed = |error| (dir.to_owned(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let parsed = path.file_name().and_then(|name| parse(name.to_str()?));
        if let Some(parsed) = parsed.filter(|_| path.is_dir()) {
            found.push((parsed, path));
        }
    }
    Ok(found)
}
