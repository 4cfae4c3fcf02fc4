//! Three nodes as processes, a proxy before them, a server behind them, and who may do what.

use bytes::Bytes;
use http::Method;
use mcp_gateway::proto::admin::v1::api_key_service_client::ApiKeyServiceClient;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::{CreateApiKeyResponse, CreateServerRequest, RevokeApiKeyRequest, Role, Server as Registered};
use mcp_gateway::proto::config::v1::{Endpoint, Transport};
use mcpgw_tests::fleet::{Admin, Call, Control, Http, NodeProcess, ORG, Rule};
use serde_json::Value;

use super::modern;
use super::proxy::Proxy;
use super::server::Server;

/// The server of the legacy era, as it is registered.
pub const NAME: &str = "fixture";
/// The server of the modern era.
pub const MODERN: &str = "modern";

pub struct World {
    pub nodes: Vec<NodeProcess>,
    pub server: Server,
    pub modern: modern::Server,
    pub proxy: Proxy,
    pub key: String,
    operator: String,
    admin: Admin,
    http: Http,
    _control: Control,
}

impl World {
    pub async fn start() -> anyhow::Result<Self> {
        let (control, server, modern) = (Control::start().await?, Server::start().await?, modern::Server::start().await?);
        let admin = control.owner().await?;
        admin.create_org(ORG).await?;
        register(&admin, NAME, &server.url(), Transport::HttpSse).await?;
        register(&admin, MODERN, &modern.url(), Transport::StreamableHttp).await?;
        for (name, server) in [("tester", NAME), ("modern-tester", MODERN)] {
            let rule = Rule { name, server, roles: &["tester"], tools: &["*"], ..Rule::default() };
            admin.create_policy(ORG, rule).await?;
        }
        let operator = admin.member(ORG, "operator@acme.test", Role::Operator).await?;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let settings = [("PEER__LISTEN", "127.0.0.1:0".to_owned()), ("LIMITS__CONNECTIONS_PER_IP", "4096".to_owned())];
            nodes.push(NodeProcess::join(&control, &admin, &settings).await?);
        }
        let key = admin.create_key(ORG, &["tester"]).await?;
        admin.wait(key.api_key.as_ref().map_or(0, |key| key.config_version)).await?;
        for node in &nodes {
            until(node, "mcpgw_dataplane_peers", 3).await;
        }
        let addresses: Vec<_> = nodes.iter().map(NodeProcess::address).collect();
        let proxy = Proxy::before(&addresses).await?;
        Ok(Self { nodes, server, modern, proxy, key: key.secret, operator, admin, http: Http::default(), _control: control })
    }

    /// Where clients of a server come.
    pub fn url_of(&self, server: &str) -> String {
        format!("http://{}/o/{ORG}/servers/{server}/mcp", self.proxy.address)
    }

    /// An operator says something to every stream.
    pub async fn broadcast(&self, message: &Value) -> Value {
        self.order(Method::POST, "/sse/broadcast", message.to_string()).await
    }

    /// An operator looks at every connection.
    pub async fn status(&self) -> Value {
        self.order(Method::GET, "/sse/status", String::new()).await
    }

    async fn order(&self, method: Method, path: &str, body: String) -> Value {
        let url = format!("http://{}{path}", self.proxy.address);
        let call = Call { url, method, headers: Vec::new(), body: Bytes::from(body) };
        let answer = self.http.send(call.header("authorization", &format!("Bearer {}", self.operator))).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.message()
    }

    /// The path of a ticket that a node keeps.
    pub async fn ticket(&self, node: &NodeProcess) -> String {
        let url = node.url(&format!("/o/{ORG}/servers/{NAME}/ws/ticket"));
        let call = Call { url, method: Method::POST, headers: Vec::new(), body: Bytes::new() };
        let answer = self.http.send(call.header("authorization", &format!("Bearer {}", self.key))).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.message()["path"].as_str().unwrap().to_owned()
    }

    /// A key that can be revoked.
    pub async fn key(&self) -> CreateApiKeyResponse {
        let key = self.admin.create_key(ORG, &["tester"]).await.unwrap();
        self.admin.wait(key.api_key.as_ref().map_or(0, |key| key.config_version)).await.unwrap();
        key
    }

    /// Revokes a key; returns once every node knows.
    pub async fn revoke(&self, key: &CreateApiKeyResponse) {
        let name = key.api_key.as_ref().unwrap().name.clone();
        let request = self.admin.request(RevokeApiKeyRequest { name, ..RevokeApiKeyRequest::default() });
        let revoked = ApiKeyServiceClient::new(self.admin.channel.clone()).revoke_api_key(request).await.unwrap().into_inner();
        self.admin.wait(revoked.config_version).await.unwrap();
    }
}

async fn register(admin: &Admin, name: &str, url: &str, transport: Transport) -> anyhow::Result<()> {
    let endpoints = vec![Endpoint { url: url.to_owned(), weight: 1 }];
    let request = CreateServerRequest {
        parent: format!("organizations/{ORG}"),
        server_id: name.to_owned(),
        server: Some(Registered { endpoints, transport: transport.into(), ..Registered::default() }),
        ..CreateServerRequest::default()
    };
    ServerServiceClient::new(admin.channel.clone()).create_server(admin.request(request)).await?;
    Ok(())
}

/// Returns when a metric of the node has this value. There is no watch on metrics, so this asks again and again.
async fn until(node: &NodeProcess, name: &str, expected: u64) {
    let asked = async {
        let mut turn = tokio::time::interval(std::time::Duration::from_millis(20));
        while node.metric(name).await.unwrap() != expected {
            turn.tick().await;
        }
    };
    let asked = tokio::time::timeout(std::time::Duration::from_secs(60), asked).await;
    asked.unwrap_or_else(|_elapsed| panic!("{name} never was {expected}"));
}
