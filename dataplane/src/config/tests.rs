use figment::Figment;
use figment::providers::{Env, Format, Serialized};
use serde_saphyr::figment::Yaml;

use super::load::{Overrides, Problems, environment, from_layers, section};
use super::{Config, LogFormat};

fn read(yaml: &str) -> Result<Config, Problems> {
    from_layers(&Figment::from(Serialized::defaults(Config::default())).merge(Yaml::string(yaml)), Overrides::default())
}

#[test]
fn defaults_alone_are_usable() {
    assert_eq!(read("").unwrap().limits.json_depth, 64);
}

#[test]
fn quantities_are_read_with_their_units() {
    let config = read("limits: { body_bytes: 2MiB }\ntimeouts: { headers: 500ms, idle: 5m }\nlog: { format: json }").unwrap();
    assert_eq!(config.limits.body_bytes, 2 << 20);
    assert_eq!(config.timeouts.headers.as_millis(), 500);
    assert_eq!(config.timeouts.idle.as_secs(), 300);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn every_unknown_key_is_named_with_its_nearest() {
    let Problems(problems) = read("limits: { body_byte: 1 }\npublik_url: x\n").unwrap_err();
    assert!(problems.contains(&"limits.body_byte: unknown key; did you mean `body_bytes`?".to_owned()), "{problems:?}");
    assert!(problems.contains(&"publik_url: unknown key; did you mean `public_url`?".to_owned()), "{problems:?}");
}

#[test]
fn every_wrong_value_is_reported_at_once() {
    let Problems(problems) = read("limits: { body_bytes: lots, json_depth: x }\ntimeouts: { idle: soon }\n").unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    let Problems(problems) = read("public_url: ftp://x\ncontrol_plane: { endpoints: [] }\ntimeouts: { idle: 0s }\n").unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn what_other_nodes_are_told_is_an_address() {
    let peer = |address: &str| read(&format!("peer: {{ advertise: '{address}' }}"));
    for good in ["10.0.0.7:7500", "node-7.example:7500", "[2001:db8::7]:7500"] {
        assert_eq!(peer(good).unwrap().peer.advertise.as_deref(), Some(good));
    }
    for wrong in ["0.0.0.0:7500", "[::]:7500", "host", "host:0", "a@host:1", "http://host:1", ""] {
        let Problems(problems) = peer(wrong).unwrap_err();
        assert!(problems[0].starts_with("peer.advertise: "), "{wrong}: {problems:?}");
    }
}

#[test]
fn what_is_wrong_with_redis_is_named_with_the_remedy() {
    let redis = |yaml: &str| read(&format!("redis: {{ {yaml} }}"));
    for good in [
        "",
        "url: 'redis://10.0.0.7:6379'",
        "url: 'rediss://redis.example:6380/2', username: mcpgw, password_file: /run/secrets/redis, ca_file: /etc/ca.pem",
        "url: 'redis://a:1, redis://b:2', cluster: true, key_prefix: 'mcpgw:eu'",
        "url: 'redis://[2001:db8::7]:6379', deadline: 25ms",
    ] {
        assert!(redis(good).is_ok(), "{good}: {:?}", redis(good).err());
    }
    for (wrong, key, remedy) in [
        ("url: 'http://x'", "url", "must start with redis://"),
        ("url: 'redis://:s3cret@x'", "url", "use redis.username and redis.password"),
        ("url: 'rediss://x#insecure'", "url", "must be scheme, host, port"),
        ("url: 'redis://0.0.0.0'", "url", "wildcard"),
        ("url: 'redis://x/one'", "url", "database"),
        ("url: 'redis://x,redis://y'", "url", "set redis.cluster"),
        ("url: 'redis://x/1', cluster: true", "url", "no numbered databases"),
        ("password: x", "url", "other settings of redis are there"),
        ("url: 'redis://x', password: x, password_file: /y", "password", "not both"),
        ("url: 'redis://x', ca_file: /y", "ca_file", "write rediss://"),
        ("key_prefix: 'a{b'", "key_prefix", "is not 1 to 64 of"),
        ("deadline: 0s", "deadline", "at most 1s"),
        ("assumed_nodes: 0", "assumed_nodes", "at least 1"),
    ] {
        let Problems(problems) = redis(wrong).unwrap_err();
        let found = problems.iter().any(|problem| problem.starts_with(&format!("redis.{key}: ")) && problem.contains(remedy));
        assert!(found && !problems.join("").contains("s3cret"), "{wrong}: {problems:?}");
    }
    let Problems(problems) = redis("url: 'x', deadline: 0s, assumed_nodes: 0, key_prefix: ''").unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(!format!("{:?}", redis("url: 'redis://x', password: s3cret").unwrap()).contains("s3cret"));
}

#[test]
fn what_is_wrong_with_the_bounds_of_children_is_named() {
    let children = |yaml: &str| read(&format!("children: {{ {yaml} }}"));
    let config = children("allow: [/usr/bin/python3], memory_bytes: 1GiB, write_timeout: 500ms").unwrap().children;
    assert_eq!((config.max, config.max_per_organization, config.memory_bytes), (256, 64, 1 << 30));
    for (wrong, problem) in [
        ("max: 0", "children.max: 0 is less than 1"),
        ("line_bytes: 10", "children.line_bytes: 10 is less than 1024"),
        ("memory_bytes: 1MiB", "children.memory_bytes: less than 16MiB"),
        ("write_timeout: 0s", "children.write_timeout: must be more than 0"),
        ("allow: [python3]", "children.allow: `python3` is not an absolute path"),
        ("alow: []", "children.alow: unknown key; did you mean `allow`?"),
    ] {
        let Problems(problems) = children(wrong).unwrap_err();
        assert!(problems.iter().any(|it| it.starts_with(problem)), "{wrong}: {problems:?}");
    }
}

#[test]
fn a_join_token_never_prints() {
    let config = read("control_plane: { join_token: mcpgw-join-s3cret }").unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(!serde_json::to_string(&config).unwrap().contains("s3cret"));
}

#[test]
fn one_file_can_hold_the_settings_of_both_planes() {
    let file = |text: &str| section(&Figment::from(Yaml::string(text)));
    let ours = file("controlplane: { x: 1 }\ndataplane: { public_url: 'https://mcp.example.com' }").unwrap();
    assert_eq!(ours["public_url"].as_str(), Some("https://mcp.example.com"));
    assert_eq!(file("public_url: x").unwrap().len(), 1);
    let Problems(problems) = file("dataplane: {}\nlisten: []").unwrap_err();
    assert_eq!(problems, ["listen: unknown section beside `dataplane`"]);
}

#[test]
#[allow(clippy::result_large_err)] // the size of figment's own error
fn a_variable_that_both_planes_know_means_the_same_to_both() {
    figment::Jail::expect_with(|jail| {
        jail.set_env("MCPGW_LOG", "debug");
        let layers = Figment::from(Serialized::defaults(Config::default())).merge(environment(Env::prefixed("MCPGW_")));
        assert_eq!(from_layers(&layers, Overrides::default()).unwrap().log.filter, "debug");
        Ok(())
    });
}
