//! The numbers of this process. Parts register their own; `http` shows them.

use std::sync::Mutex;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The registry and what is counted everywhere.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Admin RPCs answered.
    pub calls: Family<Call, Counter>,
}

/// Labels of an admin RPC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// The path, from the role table: bounded.
    pub method: &'static str,
    /// The gRPC code's number.
    pub code: i32,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mcpgw_controlplane");
        let calls = Family::default();
        registry.register("admin_calls", "Admin RPCs answered, by method and gRPC code", calls.clone());
        Self { registry: Mutex::new(registry), calls }
    }
}

impl Metrics {
    /// Adds metrics of a part.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(&mut self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// Changes several numbers so that no page shows half of the change.
    pub fn at_once(&self, change: impl FnOnce()) {
        let _page = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change();
    }

    /// All of them in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a String cannot fail");
        text
    }
}
