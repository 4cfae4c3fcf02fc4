#![allow(clippy::type_complexity, reason = "tables read best with their types in place")]

use http::HeaderValue;

use super::*;

fn check(hosts: &Hosts, host: &str, origin: Option<&str>, allowed: &[&str]) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    headers.append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
    if let Some(origin) = origin {
        headers.append(header::ORIGIN, HeaderValue::from_bytes(origin.as_bytes()).unwrap());
    }
    hosts.check(&Uri::from_static("/mcp"), &headers, allowed.iter().copied())
}

#[test]
fn only_served_hosts_pass() {
    let public = Hosts::new("https://gw.example.com", &["alt.example.com".into(), "fixed.example.com:8443".into()], false);
    let local = Hosts::new("http://127.0.0.1:8080", &[], true);
    let v6 = Hosts::new("http://[::1]:8080", &[], false);
    #[rustfmt::skip]
    let table: &[(&Hosts, &str, Option<Refusal>)] = &[
        (&public, "gw.example.com", None),
        (&public, "GW.Example.COM", None),
        (&public, "gw.example.com:443", None),
        (&public, "alt.example.com", None),
        (&public, "alt.example.com:9999", None),
        (&public, "fixed.example.com:8443", None),
        (&public, "fixed.example.com", Some(Refusal::HostNotServed)),
        (&public, "fixed.example.com:8444", Some(Refusal::HostNotServed)),
        (&public, "evil.example.com", Some(Refusal::HostNotServed)),
        (&public, "gw.example.com.evil.com", Some(Refusal::HostNotServed)),
        (&public, "evilgw.example.com", Some(Refusal::HostNotServed)),
        (&public, "gw.example.com.", Some(Refusal::HostNotServed)),
        (&public, "gw.example.com:443:443", Some(Refusal::HostNotServed)),
        (&public, "gw.example.com:", Some(Refusal::HostNotServed)),
        (&public, "gw.example.com:4x3", Some(Refusal::HostNotServed)),
        (&public, "user@gw.example.com", Some(Refusal::HostNotServed)),
        (&public, "gw.example.com/evil", Some(Refusal::HostNotServed)),
        (&public, "gw.example.com, evil.com", Some(Refusal::HostNotServed)),
        (&public, "g\u{ff57}.example.com", Some(Refusal::HostNotServed)),
        (&public, "", Some(Refusal::HostNotServed)),
        (&public, "localhost", Some(Refusal::HostNotServed)),
        (&public, "127.0.0.1", Some(Refusal::HostNotServed)),
        (&local, "localhost:8080", None),
        (&local, "localhost", None),
        (&local, "127.0.0.1:1234", None),
        (&local, "[::1]:8080", None),
        (&local, "127.0.0.2", Some(Refusal::HostNotServed)),
        (&local, "127.1", Some(Refusal::HostNotServed)),
        (&local, "2130706433", Some(Refusal::HostNotServed)),
        (&local, "localhost.evil.com", Some(Refusal::HostNotServed)),
        (&local, "evil.example.com", Some(Refusal::HostNotServed)),
        (&local, "::1", Some(Refusal::HostNotServed)),
        (&v6, "[::1]:8080", None),
        (&v6, "[::1]", Some(Refusal::HostNotServed)),
    ];
    for (hosts, host, expected) in table {
        assert_eq!(check(hosts, host, None, &[]).err(), *expected, "{host}");
    }
}

#[test]
fn only_allowed_origins_pass() {
    let public = Hosts::new("https://gw.example.com:443/", &[], false);
    let local = Hosts::new("http://127.0.0.1:8080", &[], true);
    let no = Some(Refusal::OriginNotAllowed);
    let app: &[&str] = &["https://app.example.com"];
    #[rustfmt::skip]
    let table: &[(&Hosts, &str, &str, &[&str], Option<Refusal>)] = &[
        (&public, "gw.example.com", "https://app.example.com", app, None),
        (&public, "gw.example.com", "https://gw.example.com", &[], None),
        (&public, "gw.example.com", "https://anything.org", &["*"], None),
        (&public, "gw.example.com", "null", app, no),
        (&public, "gw.example.com", "null", &["*"], no),
        (&public, "gw.example.com", "null", &["null"], None),
        (&public, "gw.example.com", "", &["*"], None),
        (&public, "gw.example.com", "", app, no),
        (&public, "gw.example.com", "http://app.example.com", app, no),
        (&public, "gw.example.com", "https://app.example.com:8443", app, no),
        (&public, "gw.example.com", "https://app.example.com:443", app, no),
        (&public, "gw.example.com", "https://app.example.com.evil.com", app, no),
        (&public, "gw.example.com", "https://evil.com/https://app.example.com", app, no),
        (&public, "gw.example.com", "https://xapp.example.com", app, no),
        (&public, "gw.example.com", "https://app.example.com/", app, no),
        (&public, "gw.example.com", "https://APP.example.com", app, no),
        (&public, "gw.example.com", "https://app.example.com@evil.com", app, no),
        (&public, "gw.example.com", "https://app.example.com https://evil.com", app, no),
        (&public, "gw.example.com", "https://\u{430}pp.example.com", app, no),
        (&public, "gw.example.com", "file://", app, no),
        (&public, "gw.example.com", "chrome-extension://abc", app, no),
        (&public, "gw.example.com", "http://gw.example.com", &[], no),
        (&public, "gw.example.com", "http://localhost:3000", &[], no),
        (&local, "localhost:8080", "http://localhost:8080", &[], None),
        (&local, "127.0.0.1:9000", "http://127.0.0.1:9000", &[], None),
        (&local, "127.0.0.1:8080", "http://127.0.0.1:8080", &[], None),
        (&local, "localhost:8080", "http://localhost:3000", &[], no),
        (&local, "localhost:8080", "https://localhost:8080", &[], no),
        (&local, "localhost:8080", "http://evil.example.com", &[], no),
        (&local, "localhost:8080", "http://localhost.evil.com:8080", &[], no),
    ];
    for (hosts, host, origin, allowed, expected) in table {
        assert_eq!(check(hosts, host, Some(origin), allowed).err(), *expected, "{host} {origin} {allowed:?}");
    }
}

#[test]
fn host_is_checked_before_origin_and_both_refuse_with_403() {
    let local = Hosts::new("http://127.0.0.1:8080", &[], true);
    let refusal = check(&local, "evil.example.com", Some("http://evil.example.com"), &["*"]).expect_err("rebinding");
    assert_eq!((refusal, refusal.status().as_u16()), (Refusal::HostNotServed, 403));
    assert_eq!(Refusal::OriginNotAllowed.status().as_u16(), 403);
}

#[test]
fn missing_doubled_and_contradicting_hosts_are_bad_requests() {
    let hosts = Hosts::new("https://gw.example.com", &[], false);
    let line = Uri::from_static("https://gw.example.com/mcp");
    let mut headers = HeaderMap::new();
    assert_eq!(hosts.check(&Uri::from_static("/mcp"), &headers, []), Err(Refusal::BadHost));
    assert_eq!(hosts.check(&line, &headers, []), Ok(()));
    headers.append(header::HOST, HeaderValue::from_static("gw.example.com"));
    assert_eq!(hosts.check(&line, &headers, []), Ok(()));
    headers.insert(header::HOST, HeaderValue::from_static("gw.example.com:443"));
    assert_eq!(hosts.check(&line, &headers, []), Err(Refusal::BadHost));
    headers.insert(header::HOST, HeaderValue::from_static("gw.example.com"));
    headers.append(header::HOST, HeaderValue::from_static("gw.example.com"));
    assert_eq!(hosts.check(&Uri::from_static("/mcp"), &headers, []), Err(Refusal::BadHost));
    let mut two_origins = HeaderMap::new();
    two_origins.append(header::HOST, HeaderValue::from_static("gw.example.com"));
    two_origins.append(header::ORIGIN, HeaderValue::from_static("https://gw.example.com"));
    two_origins.append(header::ORIGIN, HeaderValue::from_static("https://gw.example.com"));
    assert_eq!(hosts.check(&Uri::from_static("/mcp"), &two_origins, []), Err(Refusal::BadOrigin));
}
