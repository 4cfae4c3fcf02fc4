use mcp_gateway::proto::admin::v1 as admin;

use super::*;

const KNOWN: &[&str] = &["display_name", "allowed_origins", "audit_full"];

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|p| (*p).into()).collect() })
}

#[test]
fn a_mask_names_whole_known_fields_and_nothing_else() {
    let set = admin::Organization { display_name: "x".into(), uid: "u".into(), etag: "e".into(), ..Default::default() };
    let read = |paths: &[&str]| Mask::read(mask(paths).as_ref(), &set, KNOWN);
    assert_eq!(read(&["audit_full"]).unwrap().fields(), ["audit_full"]);
    assert_eq!(read(&["*"]).unwrap().fields(), KNOWN);
    assert_eq!(read(&[]).unwrap().fields(), ["display_name"]);
    assert_eq!(Mask::read(None, &set, KNOWN).unwrap().fields(), ["display_name"]);
    for refused in ["uid", "etag", "no_such", "display_name.x", "displayName", ""] {
        assert!(matches!(read(&["audit_full", refused]), Err(Error::Invalid(v)) if v.len() == 1), "{refused}");
    }
}

#[test]
fn names_are_taken_apart_exactly() {
    let parse = |name| ids("name", name, ["organizations", "servers"]).ok();
    assert_eq!(parse("organizations/a/servers/b"), Some(["a", "b"]));
    for wrong in [
        "",
        "organizations/a",
        "organizations//servers/b",
        "organizations/a/servers/b/",
        "users/a/servers/b",
        "/organizations/a/servers/b",
        "organizations/a/servers/b\0",
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
}

#[test]
fn an_etag_fits_only_its_resource_at_its_revision() {
    let at = chrono::DateTime::UNIX_EPOCH;
    let meta = |revision| Meta { revision, config_version: 0, created_at: at, updated_at: at };
    let tag = etag("a", &meta(1));
    assert!(check_etag("x", &tag, "a", &meta(1)).is_ok());
    assert!(check_etag("x", "", "a", &meta(2)).is_ok());
    assert!(matches!(check_etag("x", &tag, "a", &meta(2)), Err(Error::Stale(_))));
    assert!(matches!(check_etag("x", &tag, "b", &meta(1)), Err(Error::Stale(_))));
}
