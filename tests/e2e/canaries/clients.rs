//! MCP clients that put a secret into every part of a request that there is: into calls that are answered, and into calls that are not.

use bytes::Bytes;
use http::Method;
use mcpgw_tests::fleet::{Answer, Call, Http, ORG, SERVER};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::World;

/// A request and what may be in its answer.
struct Try {
    what: &'static str,
    call: Call,
    /// Whether the answer is the server's own, which is the caller's to see.
    relayed: bool,
    /// Places of its own that the protocol wants repeated to the caller.
    echoes: &'static [&'static str],
}

const TOOLS: [&str; 16] = [
    "plain",
    "failing",
    "error",
    "refused",
    "redirect",
    "challenge",
    "crash",
    "garbage",
    "doubled",
    "typed",
    "encoded",
    "stranger",
    "stream",
    "broken",
    "ask",
    "unknown",
];

impl World {
    /// Makes every call; what the answers tell that they must not.
    pub async fn traffic(&self) -> Vec<String> {
        let http = Http::default();
        let mut wrong = Vec::new();
        let mut tries = self.answered();
        tries.extend(self.refused());
        tries.extend(self.sessions(&http).await);
        for Try { what, call, relayed, echoes } in tries {
            let answer = match http.send(call).await {
                Ok(answer) => answer,
                // The gateway ends a stream that it cannot read, so that its client notices.
                Err(_) if what == "broken" => continue,
                Err(error) => panic!("{what}: {error:#}"),
            };
            wrong.extend(self.told(what, &answer, relayed, echoes));
        }
        for (what, head) in self.heads() {
            let answer = self.raw(&head).await;
            wrong.extend(self.garden.found_in(&answer).into_iter().map(|place| format!("answer to {what}: {place}")));
        }
        wrong
    }

    /// What an answer tells: heads are always the gateway's own.
    fn told(&self, what: &str, answer: &Answer, relayed: bool, echoes: &[&str]) -> Vec<String> {
        let head = format!("{} {:?}", answer.status, answer.headers);
        let mut found = self.garden.found_in(head.as_bytes());
        // What the gateway refuses is its own as well, wherever the call had got to.
        let refusal = !answer.status.is_success() && answer.code().is_none_or(|code| (-31_600..-31_000).contains(&code));
        if !relayed || refusal {
            found.extend(self.garden.found_in(&answer.body));
        }
        found.retain(|place| !echoes.contains(&place.as_str()));
        found.into_iter().map(|place| format!("answer to {what}: {place} in {answer:?}")).collect()
    }

    fn url(&self) -> String {
        self.node.url(&format!("/o/{ORG}/servers/{SERVER}/mcp"))
    }

    /// A request of 2026-07-28 with secrets all around what it asks.
    fn full(&self, method: &str, name: Option<&str>, mut params: Value) -> Call {
        let secret = |place: &str| self.garden.plant(place);
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": secret("clientInfo.name"), "version": secret("clientInfo.version") },
            "io.modelcontextprotocol/clientCapabilities": { "experimental": { secret("a capability"): {} } },
            "progressToken": secret("progressToken"),
            "example.com/secret": { "deep": [secret("_meta")] },
            "tracestate": format!("v={}", secret("tracestate")),
        });
        let body = json!({ "jsonrpc": "2.0", "id": secret("a request's id"), "method": method, "params": params });
        let call = Call::post(&format!("{}?token={}", self.url(), secret("the gateway's query")), body.to_string())
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .header("authorization", &format!("Bearer {}", self.key))
            .header("cookie", &format!("a=b; session={}", secret("Cookie")))
            .header("proxy-authorization", &format!("Basic {}", secret("Proxy-Authorization")))
            .header("mcp-param-region", &secret("Mcp-Param-*"))
            .header("x-custom", &secret("a custom header"))
            .header("user-agent", &format!("agent/{}", secret("User-Agent")))
            .header("referer", &format!("https://h/?t={}", secret("Referer")))
            .header("x-forwarded-for", &secret("X-Forwarded-For"))
            .header("forwarded", &format!("for={}", secret("Forwarded")))
            .header("last-event-id", &secret("Last-Event-ID"))
            .header("traceparent", &secret("traceparent"))
            .header("baggage", &format!("k={}", secret("baggage")));
        name.into_iter().fold(call, |call, name| call.header("mcp-name", name))
    }

    fn tool(&self, tool: &str) -> Call {
        let secret = |place: &str| self.garden.plant(place);
        let large = format!("{}{}", secret("a large argument"), "x".repeat(300_000));
        let arguments = json!({ "text": secret("an argument"), "deep": [{ "er": { "est": secret("a nested argument") } }],
            secret("an argument's key"): 1, "large": large });
        self.full(
            "tools/call",
            Some(tool),
            json!({ "name": tool, "arguments": arguments, "requestState": secret("requestState"),
            "inputResponses": { "q": { "action": "accept", "content": { "x": secret("an answer in inputResponses") } } } }),
        )
    }

    /// Calls that reach the server.
    fn answered(&self) -> Vec<Try> {
        let secret = |place: &str| self.garden.plant(place);
        let uri = format!(
            "db://user:{}@host/table?token={}#{}",
            secret("a URI's user info"),
            secret("a URI's query"),
            secret("a URI's fragment")
        );
        let data = format!("data:text/plain,{}", secret("a data URI"));
        let token = format!("https://host/bot/sk-{}", secret("a token in a URI's path"));
        let prompt = json!({ "name": "greet", "arguments": { "who": secret("a prompt's argument") } });
        let reference = json!({ "ref": { "type": "ref/resource", "uri": uri },
            "argument": { "name": "x", "value": secret("a value to complete") }, "context": { "arguments": { "y": secret("a completion's context") } } });
        let relayed = |what, call| Try { what, call, relayed: true, echoes: &[] };
        let mut tries: Vec<Try> = TOOLS.iter().map(|tool| relayed(*tool, self.tool(tool))).collect();
        for uri in [&uri, &data, &token] {
            tries.push(relayed("resources/read", self.full("resources/read", Some(uri), json!({ "uri": uri }))));
        }
        tries.extend([
            relayed("prompts/get", self.full("prompts/get", Some("greet"), prompt)),
            relayed("completion/complete", self.full("completion/complete", None, reference)),
            relayed("tools/list", self.full("tools/list", None, json!({ "cursor": secret("a cursor") }))),
            relayed("resources/list", self.full("resources/list", None, json!({}))),
            relayed(
                "a token",
                self.tool("plain")
                    .without("authorization")
                    .header("authorization", &format!("Bearer {}", self.token.get().expect("administrators come first"))),
            ),
            relayed("X-Api-Key", self.tool("plain").without("authorization").header("x-api-key", &self.key)),
        ]);
        tries
    }

    /// Calls that the gateway refuses.
    fn refused(&self) -> Vec<Try> {
        let secret = |place: &str| self.garden.plant(place);
        let refused = |what, call| Try { what, call, relayed: false, echoes: &["a request's id"] };
        let with = |name: &str, value: &str| self.tool("plain").without(name).header(name, value);
        let bearer = |token: &str| with("authorization", &format!("Bearer {token}"));
        let encoded = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
        let kid = encoded(&format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, secret("a token's kid")));
        let claims = encoded(&format!(r#"{{"iss":"{}","sub":"{}"}}"#, secret("a token's issuer"), secret("a token's subject")));
        let at = |path: String| Call { url: self.node.url(&path), ..self.tool("plain") };
        let body = |body: String| Call { body: Bytes::from(body), ..self.tool("plain") };
        let uri = format!("db://h/denied?token={}", secret("the query of a URI that is denied"));
        let version = secret("a protocol version");
        let mut versioned: Value = serde_json::from_slice(&self.tool("plain").body).unwrap();
        versioned["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(version);
        let versioned = Call { body: versioned.to_string().into(), ..with("mcp-protocol-version", &version) };
        vec![
            refused("a bad bearer", bearer(&secret("a bearer that is none"))),
            refused("a bad key", bearer(&format!("mcpgw_{}_{}", self.key_id(), secret("the secret of a wrong key")))),
            refused("an unknown key", bearer(&format!("mcpgw_nobody_{}", secret("the secret of an unknown key")))),
            refused("a bad X-Api-Key", self.tool("plain").without("authorization").header("x-api-key", &secret("X-Api-Key"))),
            refused("two credentials", self.tool("plain").header("x-api-key", &secret("a second credential"))),
            refused(
                "Basic",
                with("authorization", &format!("Basic {}", encoded(&format!("user:{}", secret("a basic password"))))),
            ),
            refused("a forged token", bearer(&format!("{kid}.{claims}.{}", secret("a token's signature")))),
            refused("another key of the organisation", bearer(&self.powerless)),
            refused("a denied resource", {
                let call = self.full("resources/read", Some(&uri), json!({ "uri": uri }));
                call.without("authorization").header("authorization", &format!("Bearer {}", self.powerless))
            }),
            refused("a wrong Mcp-Name", with("mcp-name", &secret("Mcp-Name"))),
            refused("a wrong Mcp-Method", with("mcp-method", &secret("Mcp-Method"))),
            refused("a wrong version", with("mcp-protocol-version", &secret("MCP-Protocol-Version"))),
            Try {
                what: "an unknown version",
                call: versioned,
                relayed: false,
                echoes: &["a request's id", "a protocol version"],
            },
            refused("a foreign Origin", with("origin", &format!("https://{}.example", secret("Origin")))),
            refused("a media type", with("content-type", &format!("text/{}", secret("Content-Type")))),
            refused("Accept", with("accept", &format!("text/{}", secret("Accept")))),
            refused("an encoding", with("content-encoding", &secret("Content-Encoding"))),
            refused("a session that is none", {
                let call = with("mcp-session-id", &secret("an Mcp-Session-Id that is none"));
                let call = call.without("mcp-method").without("mcp-name").without("mcp-protocol-version");
                Call { method: Method::GET, body: Bytes::new(), ..call.header("mcp-protocol-version", "2025-11-25") }
            }),
            refused("a path", at(format!("/o/{ORG}/servers/{SERVER}/mcp/{}", secret("the end of a path")))),
            refused("an organisation", at(format!("/o/{}/servers/{SERVER}/mcp", secret("an organisation in a path")))),
            refused(
                "a server",
                at(format!("/servers/{}/mcp?x={}", secret("a server in a path"), secret("the query of a path that is none"))),
            ),
            refused("no JSON", body(format!("{{\"password\": \"{}\"", secret("a body that ends early")))),
            refused(
                "a key twice",
                body(format!(r#"{{"jsonrpc":"2.0","{0}":1,"{0}":2}}"#, secret("a key that is twice in a body"))),
            ),
            refused("a number", body(format!("[{{\"{}\": 1e999}}]", secret("a body with a number out of range")))),
            refused(
                "not UTF-8",
                Call {
                    body: Bytes::from([secret("a body that is no UTF-8").as_bytes(), b"\xff"].concat()),
                    ..self.tool("plain")
                },
            ),
            refused(
                "an id",
                body(format!(r#"{{"jsonrpc":"2.0","id":{{"{}":1}},"method":"ping"}}"#, secret("an id that is an object"))),
            ),
            refused("too large", body(format!("\"{}{}\"", secret("a body that is too large"), "x".repeat(5 << 20)))),
        ]
    }

    /// A session of 2025-11-25: what opens it, what is said in it, and what a client answers to a server's question.
    async fn sessions(&self, http: &Http) -> Vec<Try> {
        let secret = |place: &str| self.garden.plant(place);
        let post =
            |body: Value| Call::post(&self.url(), body.to_string()).header("authorization", &format!("Bearer {}", self.key));
        let initialize = |version: &str| {
            let client =
                json!({ "name": secret("clientInfo.name of initialize"), "version": secret("clientInfo.version of initialize") });
            let params = json!({ "protocolVersion": version, "capabilities": { "experimental": { secret("a capability of initialize"): {} } },
                "clientInfo": client });
            post(json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }))
        };
        let opened = http.send(initialize("2025-11-25")).await.unwrap();
        let session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
        self.garden.note("a session's token", &session);
        let within = |body: Value| post(body).header("mcp-session-id", &session).header("mcp-protocol-version", "2025-11-25");
        let relayed = |what, call| Try { what, call, relayed: true, echoes: &[] };
        let answer = json!({ "action": "accept", "content": { "card": secret("an answer to an elicitation") } });
        let gone = Call { method: Method::DELETE, body: Bytes::new(), ..within(json!({})) };
        vec![
            relayed("initialize", initialize(&secret("the version of initialize"))),
            relayed(
                "a question",
                within(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": "ask", "arguments": { "x": secret("an argument in a session") } } })),
            ),
            relayed(
                "its answer",
                within(json!({ "jsonrpc": "2.0", "id": secret("server: the id of a question"), "result": answer })),
            ),
            relayed(
                "an error",
                within(json!({ "jsonrpc": "2.0", "id": secret("server: the id of a question"),
                "error": { "code": -1, "message": secret("a client's error") } })),
            ),
            relayed(
                "progress",
                within(json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": 1, "progress": 1, "message": secret("a client's progress message") } })),
            ),
            relayed(
                "a cancellation",
                within(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
                "params": { "requestId": 1, "reason": secret("the reason of a cancellation") } })),
            ),
            relayed(
                "a subscription",
                within(json!({ "jsonrpc": "2.0", "id": 2, "method": "resources/subscribe",
                "params": { "uri": format!("db://h/x?token={}", secret("the query of a subscription")) } })),
            ),
            relayed(
                "somebody else's session",
                within(json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/list" }))
                    .without("authorization")
                    .header("authorization", &format!("Bearer {}", self.powerless)),
            ),
            relayed("its end", gone),
        ]
    }

    /// Heads that no client library sends.
    fn heads(&self) -> Vec<(&'static str, String)> {
        let secret = |place: &str| self.garden.plant(place);
        let path = format!("/o/{ORG}/servers/{SERVER}/mcp");
        let host = self.node.address();
        vec![
            (
                "user info in a target",
                format!(
                    "POST http://user:{}@{host}{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 2\r\n\r\n{{}}",
                    secret("user info in a request target")
                ),
            ),
            (
                "user info in Host",
                format!(
                    "POST {path} HTTP/1.1\r\nhost: user:{}@{host}\r\ncontent-length: 2\r\n\r\n{{}}",
                    secret("user info in Host")
                ),
            ),
            (
                "a foreign Host",
                format!("POST {path} HTTP/1.1\r\nhost: {}.example\r\ncontent-length: 2\r\n\r\n{{}}", secret("Host")),
            ),
            (
                "a header's name",
                format!(
                    "POST {path} HTTP/1.1\r\nhost: {host}\r\nx_{}: 1\r\ncontent-length: 2\r\n\r\n{{}}",
                    secret("a header's name")
                ),
            ),
            ("a method", format!("{} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n", secret("an HTTP method"))),
            ("no HTTP", format!("GET /{} HTTP/9.9\r\n\r\n", secret("a request line that is none"))),
            (
                "a header without a colon",
                format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{}\r\n\r\n", secret("a header line that is none")),
            ),
            (
                "a body that never comes whole",
                format!(
                    "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\
                content-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: 900\r\n\r\n{{\"{}\":",
                    self.key,
                    secret("a body that breaks off")
                ),
            ),
        ]
    }

    /// Sends these bytes and no more; what comes back until either side has enough.
    async fn raw(&self, head: &str) -> Vec<u8> {
        let mut socket = TcpStream::connect(self.node.address()).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let _closed = socket.shutdown().await;
        let mut answer = Vec::new();
        let _reset = socket.read_to_end(&mut answer).await; // a server may be tired of such a client
        answer
    }
}
