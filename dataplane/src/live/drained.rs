//! Which endpoints get no calls although the configuration names them. Owns the look-up and nothing else: an operator decides, the
//! route stage asks.

use std::collections::HashMap;

use http::Uri;
use mcp_gateway::proto::config::v1::{EndpointState, Endpoints};

/// Drained endpoints by server id.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    servers: HashMap<String, Vec<Uri>>,
}

impl Drained {
    /// Whether this endpoint of the server is drained.
    #[must_use]
    pub fn has(&self, server_id: &str, url: &Uri) -> bool {
        // Nearly always nothing is.
        !self.servers.is_empty() && self.servers.get(server_id).is_some_and(|urls| urls.contains(url))
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.servers.values().map(Vec::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }
}

impl From<&Endpoints> for Drained {
    fn from(endpoints: &Endpoints) -> Self {
        let mut servers: HashMap<String, Vec<Uri>> = HashMap::new();
        for server in &endpoints.servers {
            // A state that this version does not know takes nothing out of use.
            let drained = server.endpoints.iter().filter(|endpoint| endpoint.state() == EndpointState::Drained);
            let urls: Vec<Uri> = drained.filter_map(|endpoint| endpoint.url.parse().ok()).collect();
            if !urls.is_empty() {
                servers.entry(server.server_id.clone()).or_default().extend(urls);
            }
        }
        Self { servers }
    }
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::config::v1::{EndpointStatus, ServerEndpoints};

    use super::*;

    #[test]
    fn only_what_is_said_to_be_drained_is() {
        let status = |url: &str, state: i32| EndpointStatus { url: url.into(), state };
        let endpoints = vec![
            status("http://a.test/mcp", EndpointState::Drained.into()),
            status("http://b.test/mcp", EndpointState::Active.into()),
            status("http://c.test/mcp", 77),
        ];
        let endpoints = Endpoints { servers: vec![ServerEndpoints { server_id: "s1".into(), endpoints }] };
        let drained = Drained::from(&endpoints);
        let has = |server, url: &str| drained.has(server, &url.parse().unwrap());
        assert!(has("s1", "http://a.test/mcp") && has("s1", "http://A.test/mcp"));
        assert!(!has("s1", "http://b.test/mcp") && !has("s1", "http://c.test/mcp"));
        assert!(!has("s2", "http://a.test/mcp"), "another server at the same place is another matter");
        assert_eq!(drained.len(), 1);
        assert!(Drained::from(&Endpoints::default()).is_empty());
    }
}
