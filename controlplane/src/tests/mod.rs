//! The whole control plane, in this process, on a real Postgres.
#![allow(clippy::disallowed_methods)] // tests may spawn

pub mod admin;
mod api_keys;
mod auth;
mod away;
mod changes;
mod config_status;
mod custody;
mod documents;
mod endpoints;
mod every_rpc;
mod fleet;
mod follow;
mod found;
mod history;
mod limit_usage;
mod logs;
mod memberships;
mod organizations;
mod payloads;
mod policies;
mod proof;
mod rate_limits;
mod roles;
mod rollouts;
mod servers;
mod start;
mod tls;
mod tokens;
mod transports;
mod users;
