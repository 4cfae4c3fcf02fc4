//! The official conformance suite as a referee: runs it against a URL, reads its verdicts and compares them with
//! the committed record of a direct run. Knows nothing of what is behind the URL; used by `tests/e2e` and
//! `mcpgw-conformance-record`.

mod across;
mod client;
mod record;
mod report;
mod suite;

pub use across::Across;
pub use client::{Scenario, Speaker, play, scenarios};
pub use record::{Record, Worse, direct, judged, record_path, worse_than, write};
pub use report::{CheckId, Report, Status, Totals};
pub use suite::{Suite, run};
