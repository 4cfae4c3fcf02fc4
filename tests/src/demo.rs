//! The demo server: three tools, one resource, one prompt, both eras. Owns nothing that tests judge by;
//! used by `mcpgw-demo-server` for a first look at the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResult, ContentBlock, GetPromptRequestParams, GetPromptResponse, GetPromptResult, Implementation, ListPromptsResult,
    ListResourcesResult, PaginatedRequestParams, Prompt, PromptArgument, PromptMessage, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, Role, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler, schemars, tool, tool_handler, tool_router};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::serve::Served;

const README_URI: &str = "demo://readme";
const README: &str = "This is the demo server of MCP Gateway. Try the tools add, echo and now.";

#[derive(Deserialize, schemars::JsonSchema)]
struct Summands {
    /// First number
    a: f64,
    /// Second number
    b: f64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Words {
    /// What to say back
    text: String,
}

#[derive(Clone)]
struct Demo {
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Demo {
    fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(description = "Adds two numbers")]
    async fn add(&self, Parameters(Summands { a, b }): Parameters<Summands>) -> CallToolResult {
        said((a + b).to_string())
    }

    #[tool(description = "Says your text back to you")]
    async fn echo(&self, Parameters(Words { text }): Parameters<Words>) -> CallToolResult {
        said(text)
    }

    #[tool(description = "Tells the time in UTC")]
    async fn now(&self) -> CallToolResult {
        said(rmcp::task_manager::current_timestamp())
    }
}

fn said(text: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Demo {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().enable_prompts().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("mcpgw-demo-server", env!("CARGO_PKG_VERSION")))
            .with_instructions("A demo server: add numbers, echo text, tell the time.")
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let readme = Resource::new(README_URI, "readme").with_description("What this server is").with_mime_type("text/plain");
        Ok(ListResourcesResult::with_all_items(vec![readme]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if request.uri != README_URI {
            let message = format!("there is no resource {}; try {README_URI}", request.uri);
            return Err(ErrorData::resource_not_found(message, None));
        }
        let contents = ResourceContents::text(README, README_URI).with_mime_type("text/plain");
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let name = PromptArgument::new("name").with_description("Whom to greet").with_required(true);
        let greet = Prompt::new("greet", Some("Greets somebody"), Some(vec![name]));
        Ok(ListPromptsResult::with_all_items(vec![greet]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name != "greet" {
            let message = format!("there is no prompt {}; try greet", request.name);
            return Err(ErrorData::invalid_params(message, None));
        }
        let arguments = request.arguments.unwrap_or_default();
        let name = arguments.get("name").and_then(|name| name.as_str()).unwrap_or("friend");
        let message = PromptMessage::new_text(Role::User, format!("Greet {name} warmly."));
        Ok(GetPromptResult::new(vec![message]).into())
    }
}

/// Starts the demo server; it stops when the returned handle is dropped.
pub async fn start(listen: SocketAddr) -> anyhow::Result<Served> {
    let stop = CancellationToken::new();
    let config = StreamableHttpServerConfig::default().with_cancellation_token(stop.child_token());
    let demo = Demo::new();
    let service = StreamableHttpService::new(move || Ok(demo.clone()), Arc::new(LocalSessionManager::default()), config);
    Served::start(listen, axum::Router::new().nest_service("/mcp", service), stop).await
}
