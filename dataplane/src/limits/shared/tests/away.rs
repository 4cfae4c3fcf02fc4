//! Redis away: killed, stalled, emptied, or never there.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn while_redis_is_away_each_limit_does_what_it_says_and_counts_what_is_owed() {
    let mut server = RedisServer::start();
    let (node, other) = (Node::start(&server, 2).await, Node::start(&server, 2).await);
    let rules = [LimitAway::Share, LimitAway::Open, LimitAway::Closed];
    let [share, open, closed] = rules.map(|away| named(&format!("{away:?}"), &[(10, 3600)], away));
    for limit in [&share, &open, &closed] {
        assert_eq!(node.admitted(limit, 2).await, 2);
    }
    server.kill();
    // 8 were left, half of them to this node.
    assert_eq!(node.admitted(&share, 20).await, 4);
    assert_eq!(node.admitted(&open, 20).await, 20);
    assert_eq!(node.ask(&[demand(&closed)]).await.unwrap_err().why, Why::Away);
    // The other had nothing, and does not know what this one had.
    assert_eq!(other.admitted(&share, 20).await, 5);
    assert_eq!(node.mode(), Mode::Share);
    assert_eq!(node.stats.decisions(How::Share, true), 4);
    assert_eq!((node.stats.decisions(How::Open, true), node.stats.decisions(How::Closed, false)), (20, 1));

    // It has forgotten everything. What both had in it and admitted since is in it again: 6 and 5 of 10.
    server.restart();
    node.until_away(false).await;
    other.until_away(false).await;
    let fresh = Node::start(&server, 2).await;
    assert_eq!((fresh.admitted(&share, 5).await, fresh.admitted(&open, 5).await), (0, 0));
    assert_eq!(fresh.admitted(&closed, 20).await, 8, "the two of before");
}

#[tokio::test]
async fn what_was_admitted_while_redis_was_away_is_told_once() {
    let mut server = RedisServer::start();
    let node = Node::start(&server, 1).await;
    let limit = limit(&[(10, 3600)], LimitAway::Share);
    assert_eq!(node.admitted(&limit, 2).await, 2);
    server.kill();
    assert_eq!(node.admitted(&limit, 3).await, 3);
    server.restart();
    node.until_away(false).await;
    let fresh = Node::start(&server, 1).await;
    assert_eq!(fresh.admitted(&limit, 20).await, 5);
}

/// Emptied under a standing connection: a count that begins anew tells that it was lost.
#[tokio::test]
async fn what_redis_forgets_it_is_told_again() {
    let server = RedisServer::start();
    let (node, other) = (Node::start(&server, 2).await, Node::start(&server, 2).await);
    let limit = limit(&[(20, 3600)], LimitAway::Share);
    for calls in [4, 1] {
        assert_eq!((node.admitted(&limit, calls).await, other.admitted(&limit, calls).await), (calls, calls));
    }
    redis::cmd("FLUSHALL").exec_async(&mut server.connect().await).await.unwrap();
    // Until all have told theirs, none takes more than its part of what was left: one had seen 9, the other 10.
    let (here, there) = (node.admitted(&limit, 20).await, other.admitted(&limit, 20).await);
    assert_eq!((here, there), (5, 5));
    loop {
        // It is told beside calls; asking for nothing says how much is known.
        let fresh = Node::start(&server, 2).await;
        let nothing = Demand { cost: 0, ..demand(&limit) };
        if fresh.ask(&[nothing]).await.unwrap().tightest.unwrap().remaining == 0 {
            assert_eq!(fresh.admitted(&limit, 1).await, 0);
            break;
        }
    }
}

/// SIGSTOP: connections stay, nobody answers. Without a bound these calls would never return.
#[tokio::test]
async fn a_call_waits_for_a_stalled_redis_no_longer_than_the_deadline_and_soon_not_at_all() {
    let server = RedisServer::start();
    let settings = Redis { url: server.url(), deadline: Duration::from_millis(10), ..Redis::default() };
    let node = Node::with(settings, 4).await;
    let limit = limit(&[(100, 3600)], LimitAway::Share);
    server.stall();
    assert_eq!(node.admitted(&limit, 200).await, 25, "a fourth");
    assert!(node.stats.is_away());
    server.go_on();
    node.until_away(false).await;
    let fresh = Node::start(&server, 4).await;
    // What was asked and not heard may have been counted as well: less is admitted then, never more.
    let rest = fresh.admitted(&limit, 200).await;
    assert!((60..=75).contains(&rest), "{rest}");
}

#[tokio::test]
async fn a_redis_that_was_never_there_keeps_nobody_from_serving() {
    let mut server = RedisServer::start();
    server.kill();
    let node = Node::with(Redis { url: server.url(), ..Redis::default() }, 0).await;
    let limit = limit(&[(80, 3600)], LimitAway::Share);
    assert_eq!(node.admitted(&limit, 100).await, 10, "an eighth, until the control plane says how many nodes there are");
    node.limits.live_nodes(2);
    assert_eq!(node.admitted(&limit, 100).await, 30);
    server.restart();
    node.until_away(false).await;
    let fresh = Node::start(&server, 2).await;
    assert_eq!(fresh.admitted(&limit, 100).await, 40);
}

#[tokio::test]
async fn credentials_and_certificates_are_checked_and_read_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let issuer = rcgen::CertifiedIssuer::self_signed(authority(), rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in
        [("ca", issuer.pem()), ("cert", leaf.pem()), ("key", key.serialize_pem()), ("password", "s3cret\n".into())]
    {
        std::fs::write(path(name), text).unwrap();
    }
    let file = |name: &str| path(name).display().to_string();
    let server = RedisServer::with(|port| {
        let tls = ["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
        let files = [("--tls-cert-file", "cert"), ("--tls-key-file", "key"), ("--tls-ca-cert-file", "ca")];
        let files = files.into_iter().flat_map(|(flag, name)| [flag.to_owned(), file(name)]);
        // What docs/LIMITS.md says that a user needs, and nothing else.
        let user = "--user mcpgw on >s3cret ~mcpgw:* +eval +evalsha +get +set +time +ping --user default off";
        tls.into_iter().map(str::to_owned).chain(files).chain(user.split(' ').map(str::to_owned)).collect()
    });
    let settings = |password: &str| Redis {
        url: format!("rediss://localhost:{}", server.port),
        username: Some("mcpgw".into()),
        password_file: Some(path(password)),
        ca_file: Some(path("ca")),
        deadline: Duration::from_secs(1),
        ..Redis::default()
    };
    let limit = limit(&[(10, 3600)], LimitAway::Closed);
    assert_eq!(Node::with(settings("password"), 1).await.admitted(&limit, 3).await, 3);
    // Somebody else's authority, and another password.
    let stranger = Redis { ca_file: Some(path("cert")), ..settings("password") };
    assert_eq!(Node::with(stranger, 1).await.admitted(&limit, 3).await, 0);
    assert_eq!(Node::with(settings("ca"), 1).await.admitted(&limit, 3).await, 0);
    let missing = Limits::open(&Config { redis: settings("nowhere"), ..Config::default() }, Arc::default());
    let told = missing.connect().await.unwrap_err().to_string();
    assert!(told.starts_with("redis.password_file ") && told.contains("nowhere"), "{told}");
}

fn authority() -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params
}
