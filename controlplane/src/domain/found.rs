//! What nodes found out about servers by asking them, from what they report.
//!
//! Pure. Reports come through `nodes`, are kept by `store`, and are read by `api`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use mcp_gateway::proto::{
    config::v1::{Era, Transport},
    node::v1::FoundServer,
};
use uuid::Uuid;

/// Servers of one report, at most.
const MOST_SERVERS: usize = 1000;

/// How a server wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Unspecified: not found out, as in the next.
    pub transport: Transport,
    pub era: Era,
    pub at: DateTime<Utc>,
}

/// What a report says, by server. What makes no sense is left out: the rest of the report is worth having.
pub fn read(found: &[FoundServer]) -> BTreeMap<Uuid, Found> {
    found.iter().take(MOST_SERVERS).filter_map(one).collect()
}

fn one(told: &FoundServer) -> Option<(Uuid, Found)> {
    let found = Found {
        transport: Transport::try_from(told.transport).ok()?,
        era: Era::try_from(told.era).ok()?,
        at: DateTime::from_timestamp_millis(i64::try_from(told.found_at_ms).ok()?)?,
    };
    let says_something = found.transport != Transport::Unspecified || found.era != Era::Unspecified;
    says_something.then_some((Uuid::try_parse(&told.server_id).ok()?, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_left_out_of_a_report() {
        let told = |server: u128| FoundServer {
            server_id: Uuid::from_u128(server).to_string(),
            transport: Transport::HttpSse.into(),
            era: Era::Legacy.into(),
            found_at_ms: 5_000,
        };
        let bad = [
            FoundServer { server_id: "github".into(), ..told(1) },
            FoundServer { transport: 99, ..told(2) },
            FoundServer { era: -1, ..told(3) },
            FoundServer { found_at_ms: u64::MAX, ..told(4) },
            FoundServer { transport: 0, era: 0, ..told(5) },
        ];
        let good = Found { transport: Transport::HttpSse, era: Era::Legacy, at: DateTime::from_timestamp(5, 0).unwrap() };
        let all: Vec<_> = bad.into_iter().chain([told(6), told(6)]).collect();
        assert_eq!(read(&all), BTreeMap::from([(Uuid::from_u128(6), good)]));
        assert_eq!(read(&(0..5000).map(told).collect::<Vec<_>>()).len(), MOST_SERVERS);
    }
}
