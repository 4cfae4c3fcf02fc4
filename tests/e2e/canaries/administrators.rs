//! Administrators who put a secret into everything that they write, and read back everything that there is to read.

use std::path::Path;
use std::process::Stdio;

use http::Method;
use mcp_gateway::proto::admin::v1::auth_service_client::AuthServiceClient;
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;
use mcp_gateway::proto::admin::v1::server_service_client::ServerServiceClient;
use mcp_gateway::proto::admin::v1::user_service_client::UserServiceClient;
use mcp_gateway::proto::admin::v1::{
    Audience, CreateMembershipRequest, CreateServerRequest, CreateUserRequest, ListServersRequest, LoginRequest, LogoutRequest,
    Membership, RefreshRequest, Role, Server, SetPasswordRequest, TokenResponse, UpdateServerRequest, UpstreamCredential, User,
};
use mcp_gateway::proto::config::v1::Endpoint;
use mcpgw_tests::fleet::{Admin, Call, Http, ORG, OWNER_EMAIL, SERVER};
use mcpgw_tests::program::beside;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use uuid::Uuid;

use super::{OWNER_PASSWORD, World};

const EMAIL: &str = "ada@example.com";

/// What an administrator reads: the words of the command line, and the arguments that stand for what there is.
const READS: [&[&str]; 27] = [
    &["whoami"],
    &["org", "list"],
    &["org", "get", ORG],
    &["user", "list"],
    &["user", "get", EMAIL],
    &["membership", "list"],
    &["key", "list"],
    &["server", "list"],
    &["server", "get", SERVER],
    &["policy", "list"],
    &["limit", "list"],
    &["node", "list"],
    &["node", "join-token", "list"],
    &["custody", "list"],
    &["config", "status"],
    &["config", "versions"],
    &["config", "diff", "1"],
    &["config", "rollout", "list"],
    &["audit", "list", "--limit", "0"],
    &["audit", "list", "--admin", "--limit", "0"],
    &["audit", "errors", "--limit", "0"],
    &["stats"],
    &["export"],
    &["tools", SERVER],
    &["call", SERVER, "plain"],
    &["apply", "-f", "bad.yaml", "--yes"],
    &["login", OWNER_EMAIL, "--password-stdin"],
];

impl World {
    /// Writes secrets by every way there is; what the answers tell.
    pub async fn administer(&self) -> Vec<String> {
        let secret = |place: &str| self.garden.plant(place);
        let mut said = Vec::new();
        let mut servers = ServerServiceClient::new(self.admin.channel.clone());
        let credential = |value: String| Some(UpstreamCredential { header: "authorization".into(), value });
        let server = |url: String| Server { endpoints: vec![Endpoint { url, weight: 1 }], ..Server::default() };
        for (id, url) in [
            ("user-info", format!("https://user:{}@h/mcp", secret("a URL's user info"))),
            ("fragment", format!("https://h/mcp#{}", secret("a URL's fragment"))),
            ("token", format!("https://h/mcp?api_key={}", secret("a URL's query"))),
            ("not-a-url", format!("nothing {}", secret("a URL that is none"))),
        ] {
            let request = CreateServerRequest {
                parent: format!("organizations/{ORG}"),
                server_id: id.into(),
                server: Some(server(url)),
                ..Default::default()
            };
            let answer = servers.create_server(self.admin.request(request)).await;
            said.push((id, format!("{:?}", answer.expect_err(id))));
        }
        for place in ["a server's first credential", "a server's second credential"] {
            let name = format!("organizations/{ORG}/servers/{SERVER}");
            let changed =
                Server { name, upstream_credential: credential(format!("Bearer {}", secret(place))), ..Server::default() };
            // With an id, so that the answer is kept for repetitions.
            let request =
                UpdateServerRequest { server: Some(changed), request_id: Uuid::now_v7().to_string(), ..Default::default() };
            said.push((place, format!("{:?}", servers.update_server(self.admin.request(request)).await.unwrap())));
        }
        let bad = Server {
            upstream_credential: Some(UpstreamCredential {
                header: "host".into(),
                value: secret("a credential that is refused"),
            }),
            ..server(self.server.url())
        };
        let request = CreateServerRequest {
            parent: format!("organizations/{ORG}"),
            server_id: "bad".into(),
            server: Some(bad),
            ..Default::default()
        };
        said.push(("a bad credential", format!("{:?}", servers.create_server(self.admin.request(request)).await.unwrap_err())));
        let page = ListServersRequest {
            parent: format!("organizations/{ORG}"),
            page_token: secret("a page token"),
            ..Default::default()
        };
        said.push(("a bad page token", format!("{:?}", servers.list_servers(self.admin.request(page)).await.unwrap_err())));
        said.extend(self.people().await);
        said.into_iter()
            .flat_map(|(what, text)| {
                self.garden.found_in(text.as_bytes()).into_iter().map(move |place| format!("answer to {what}: {place}"))
            })
            .collect()
    }

    /// Passwords and what is got for them.
    async fn people(&self) -> Vec<(&'static str, String)> {
        let secret = |place: &str| self.garden.plant(place);
        let mut said = Vec::new();
        let mut users = UserServiceClient::new(self.admin.channel.clone());
        let user = User { email: EMAIL.into(), ..User::default() };
        let request = CreateUserRequest {
            user: Some(user),
            password: secret("a new user's password"),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let made = users.create_user(self.admin.request(request)).await.unwrap().into_inner();
        said.push(("a new user", format!("{made:?}")));
        let name = made.name;
        let password = secret("a password that was set");
        let request = SetPasswordRequest {
            name: name.clone(),
            current_password: secret("a new user's password"),
            new_password: password.clone(),
        };
        said.push(("a password", format!("{:?}", users.set_password(self.admin.request(request)).await.unwrap())));
        let membership = Membership {
            user: name.clone(),
            role: Role::Member.into(),
            policy_roles: vec!["tester".into()],
            ..Membership::default()
        };
        let request = CreateMembershipRequest {
            parent: format!("organizations/{ORG}"),
            membership: Some(membership),
            ..Default::default()
        };
        MembershipServiceClient::new(self.admin.channel.clone()).create_membership(self.admin.request(request)).await.unwrap();

        let mut door = AuthServiceClient::new(self.admin.channel.clone());
        let login = |password: String| LoginRequest {
            email: EMAIL.into(),
            password,
            organization: String::new(),
            audience: Audience::Gateway.into(),
        };
        said.push(("a wrong password", format!("{:?}", door.login(login(secret("a wrong password"))).await.unwrap_err())));
        let first = door.login(login(password)).await.unwrap().into_inner();
        let second =
            door.refresh(RefreshRequest { refresh_token: first.refresh_token.clone(), audience: 0 }).await.unwrap().into_inner();
        for (number, TokenResponse { access_token, refresh_token, .. }) in [first.clone(), second].into_iter().enumerate() {
            self.garden.note(&format!("access token {number}"), &access_token);
            self.garden.note(&format!("refresh token {number}"), &refresh_token);
        }
        let again = door.refresh(RefreshRequest { refresh_token: first.refresh_token, audience: 0 }).await;
        said.push(("a used refresh token", format!("{:?}", again.unwrap_err())));
        let refused = door.refresh(RefreshRequest { refresh_token: secret("a refresh token that is none"), audience: 0 }).await;
        said.push(("a bad refresh token", format!("{:?}", refused.unwrap_err())));
        said.push((
            "a bad logout",
            format!("{:?}", door.logout(LogoutRequest { refresh_token: secret("a logout's token") }).await),
        ));
        // Of a session that nobody ended.
        let token = door.login(login(secret("a password that was set"))).await.unwrap().into_inner().access_token;
        self.garden.note("a token for the gateway", &token);
        self.token.set(token).unwrap();
        let stranger = Admin { token: secret("a bad access token"), ..self.admin.clone() };
        said.push(("a bad access token", format!("{:?}", stranger.create_org("never").await.unwrap_err())));
        said
    }

    /// Reads everything, over HTTP and with the command line; writes what it gets to files in `to`.
    pub async fn read_everything(&self, to: &Path) {
        let http = Http::default();
        let token = &self.admin.token;
        let query = self.garden.plant("a query of the admin API");
        for path in ["logs", "logs/audit", "logs/errors", "stats", "logs/nothing"] {
            for (what, query) in [("", String::new()), ("bad", format!("access_token={query}"))] {
                let url = format!("http://{}/admin/{path}?parent=organizations/{ORG}&{query}", self.control.http);
                let headers = vec![("authorization".into(), format!("Bearer {token}"))];
                let answer = http.send(Call { url, method: Method::GET, headers, body: Default::default() }).await.unwrap();
                std::fs::write(to.join(format!("http-{}{what}", path.replace('/', "-"))), &answer.body).unwrap();
            }
        }
        let home = tempfile::tempdir().unwrap();
        let (endpoint, gateway) = (format!("http://{}", self.control.admin), self.node.url(""));
        let login = ["login", OWNER_EMAIL, "--endpoint", &endpoint, "--gateway", &gateway, "--org", ORG, "--password-stdin"];
        self.mcpgw(home.path(), &login, &self.garden.plant(OWNER_PASSWORD), &to.join("cli-login")).await;
        let credential = self.garden.plant("a credential in a document that is refused");
        let document = format!(
            "servers:\n  bad:\n    endpoints: [{{url: 'http://h/'}}]\n    upstreamCredential: {{header: host, value: [{credential}]}}\n"
        );
        std::fs::write(home.path().join("bad.yaml"), document).unwrap();
        for (number, words) in READS.iter().enumerate() {
            for form in ["table", "json"] {
                let words = [*words, &["-o", form]].concat();
                let wrong = self.garden.plant("a wrong password on the command line");
                let ended = self.mcpgw(home.path(), &words, &wrong, &to.join(format!("cli-{number}-{form}"))).await;
                // Not because nobody knows the command.
                assert!(
                    ended != Some(2) || words[0] == "apply",
                    "{words:?}: {}",
                    std::fs::read_to_string(to.join(format!("cli-{number}-{form}"))).unwrap()
                );
            }
        }
    }

    async fn mcpgw(&self, home: &Path, words: &[&str], input: &str, to: &Path) -> Option<i32> {
        let mut command = Command::new(beside("mcpgw").unwrap());
        command.args(words).current_dir(home).env("MCPGW_CONFIG_DIR", home.join("config"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _closed = stdin.write_all(input.as_bytes()).await; // most do not read it
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        std::fs::write(to, [output.stdout, output.stderr].concat()).unwrap();
        output.status.code()
    }
}
