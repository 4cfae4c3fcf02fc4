//! Gives up a lane that cannot be continued (damage, or a control plane that no longer knows where it was): every frame that is
//! still readable and not acknowledged is written again into a lane of this run, damaged segments are kept aside for people to look at.
//! Rows stay unique: the control plane tells calls apart by request id and time, not by lane.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::lane::{Lane, delete, first_seq};
use super::writer::Writer;
use super::{Spool, SpoolError, locked};
use crate::audit::frame::{self, Found};

struct Readable {
    payloads: Vec<(u64, bytes::Bytes)>,
    damaged: bool,
}

impl Spool {
    /// Moves what is left of `lane` into this run. On an error the lane stays as it was and may be tried again.
    pub(crate) fn abandon(&self, lane: &Arc<Lane>, reason: &str) -> Result<(), SpoolError> {
        // Held until all is moved: the end of a call must not overtake its beginning.
        let own = self.slots.iter().map(|slot| locked(&slot.writer)).find(|writer| Arc::ptr_eq(&writer.lane(), lane));
        let mut writer = own.unwrap_or_else(|| locked(&self.slots[0].writer));
        if Arc::ptr_eq(&writer.lane(), lane) {
            *writer = self.new_writer();
        }
        lane.close();
        let (acked, written) = (lane.acked(), lane.written());
        let (mut moved, mut damaged) = (0, Vec::new());
        for path in lane.segments() {
            let readable = read(&path);
            for (seq, payload) in readable.payloads {
                if (acked + 1..=written).contains(&seq) {
                    self.append_again(&mut writer, &payload)?;
                    moved += 1;
                }
            }
            if readable.damaged {
                damaged.push(path);
            }
        }
        let lost = (written - acked).saturating_sub(moved);
        self.counters.lost.fetch_add(lost, Relaxed);
        tracing::error!(
            audit.boot = %lane.id.boot, audit.lane = lane.id.number, audit.moved = moved, audit.lost = lost,
            "gave up an audit lane: {reason}; its readable frames were moved to a new lane"
        );
        self.unkeep(lane); // it is deleted with the rest, or set aside
        for path in lane.give_up().into_values() {
            if damaged.contains(&path) { self.quarantine(lane, &path) } else { delete(&path, &self.bytes) }
        }
        lane.remove_directory();
        locked(&self.lanes).retain(|kept| !Arc::ptr_eq(kept, lane));
        Ok(())
    }

    /// Past the limits: these bytes were admitted before and leave the lane that is given up.
    fn append_again(&self, writer: &mut Writer, payload: &[u8]) -> Result<(), SpoolError> {
        self.bytes.fetch_add(frame::size(payload.len()) as u64, Relaxed);
        self.put_again(writer, payload)
    }

    fn quarantine(&self, lane: &Lane, path: &Path) {
        self.counters.quarantined.fetch_add(1, Relaxed);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kept = self.dir.join("quarantine").join(format!("{}-{:04}-{name}", lane.id.boot, lane.id.number));
        let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let done = fs::create_dir_all(self.dir.join("quarantine")).and_then(|()| fs::rename(path, &kept));
        match done {
            Ok(()) => {
                self.bytes.fetch_sub(size.min(self.bytes.load(Relaxed)), Relaxed);
                tracing::error!(path = %kept.display(), "a damaged audit segment was set aside");
            }
            Err(error) => tracing::error!(%error, path = %path.display(), "a damaged audit segment could not be set aside"),
        }
    }
}

fn read(path: &PathBuf) -> Readable {
    let mut readable = Readable { payloads: Vec::new(), damaged: false };
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "an audit segment cannot be read");
            return Readable { damaged: true, ..readable };
        }
    };
    let (mut at, mut last) = (0, first_seq(path).map_or(0, |first| first - 1));
    loop {
        match frame::decode(&content[at..]) {
            Found::Frame(frame, size) if frame.seq > last => {
                readable.damaged |= frame.seq > last + 1;
                last = frame.seq;
                at += size;
                readable.payloads.push((frame.seq, frame.payload));
            }
            Found::End => return readable,
            // One that repeats or goes back would be moved twice.
            Found::Frame(..) | Found::Cut { .. } | Found::Damaged(_) => {
                readable.damaged = true;
                match frame::resume(&content[at..], last) {
                    Some(skipped) => at += skipped,
                    None => return readable,
                }
            }
        }
    }
}
