//! Tables: what changes fold to, and which fields differ.

use serde_json::json;

use super::*;

fn step(resource: &str, before: Option<Value>, after: Option<Value>) -> Step {
    let (org_slug, kind, operation) = ("acme".into(), "policy".into(), "update".into());
    Step { org_slug, kind, resource: resource.into(), operation, before, after }
}

#[test]
fn consecutive_changes_of_a_resource_fold_into_one() {
    let doc = |n: i32| Some(json!({ "n": n }));
    // The documents of each change, and what is left of them.
    #[rustfmt::skip]
    let table = [
        ("one", vec![(doc(1), doc(2))], Some((doc(1), doc(2), "update"))),
        ("two", vec![(doc(1), doc(2)), (doc(2), doc(3))], Some((doc(1), doc(3), "update"))),
        ("there and back", vec![(doc(1), doc(2)), (doc(2), doc(1))], None),
        ("made", vec![(None, doc(1)), (doc(1), doc(2))], Some((None, doc(2), "create"))),
        ("made and removed", vec![(None, doc(1)), (doc(1), None)], None),
        ("removed", vec![(doc(1), doc(2)), (doc(2), None)], Some((doc(1), None, "delete"))),
        ("removed and made anew", vec![(doc(1), None), (None, doc(2))], Some((doc(1), doc(2), "update"))),
        ("removed and made the same", vec![(doc(1), None), (None, doc(1))], None),
        ("of no documents", vec![(None, None), (None, None)], Some((None, None, "update"))),
        ("partly of documents", vec![(None, None), (doc(1), doc(2)), (None, None)], Some((doc(1), doc(2), "update"))),
    ];
    for (case, steps, expected) in table {
        let steps = steps.into_iter().map(|(before, after)| step("p", before, after));
        let found = fold(steps).pop().map(|step| (step.before, step.after, step.operation));
        assert_eq!(found, expected.map(|(before, after, operation)| (before, after, operation.to_owned())), "{case}");
    }
}

#[test]
fn resources_do_not_fold_into_each_other_and_come_in_order() {
    let mut other_kind = step("a", None, Some(json!(1)));
    other_kind.kind = "apolicy".into();
    let folded = fold([step("b", None, Some(json!(1))), step("a", None, Some(json!(2))), other_kind]);
    let names: Vec<_> = folded.iter().map(|step| (step.kind.as_str(), step.resource.as_str())).collect();
    assert_eq!(names, [("apolicy", "a"), ("policy", "a"), ("policy", "b")]);
}

/// Field, before and after.
type Expected<'a> = [(&'a str, &'a str, &'a str)];

#[test]
fn fields_that_differ_are_named_by_path() {
    let none = Value::Null;
    #[rustfmt::skip]
    let table: [(Value, Value, &Expected<'_>); 8] = [
        (json!({ "a": 1 }), json!({ "a": 1 }), &[]),
        (json!({ "a": 1 }), json!({ "a": 2 }), &[("a", "1", "2")]),
        (json!({ "a": "x" }), json!({}), &[("a", r#""x""#, "")]),
        (json!({}), json!({ "s": { "roles": ["a"] } }), &[("s.roles", "", r#"["a"]"#)]),
        (json!({ "s": ["a", "b"] }), json!({ "s": ["b"] }), &[("s", r#"["a","b"]"#, r#"["b"]"#)]),
        (json!({ "e": [{ "url": "u", "w": 1 }] }), json!({ "e": [{ "url": "v", "w": 1 }, { "url": "x" }] }),
            &[("e[0].url", r#""u""#, r#""v""#), ("e[1].url", "", r#""x""#)]),
        (none.clone(), json!({ "a": 1, "uid": "u" }), &[("a", "", "1")]),
        (json!({ "a": 1, "uid": "u" }), json!({ "a": 1, "uid": "v" }), &[("uid", r#""u""#, r#""v""#)]),
    ];
    for (before, after, expected) in table {
        let document = |value: Value| (value != none).then_some(value);
        let found = diff(&[step("p", document(before.clone()), document(after.clone()))]).resources.remove(0).fields;
        let found: Vec<_> = found.iter().map(|f| (f.field.as_str(), f.before.as_str(), f.after.as_str())).collect();
        assert_eq!(found, expected, "{before} {after}");
    }
}

#[test]
fn a_step_undone_is_its_inverse() {
    let made = Step { operation: "create".into(), ..step("p", None, Some(json!(1))) };
    let undone = made.clone().inverse();
    assert_eq!((undone.operation.as_str(), &undone.before, &undone.after), ("delete", &Some(json!(1)), &None));
    assert_eq!(undone.inverse(), made);
}

#[test]
fn a_difference_is_cut_to_what_fits_and_says_so() {
    let steps: Vec<_> = (0..50).map(|n| step(&format!("p{n}"), None, Some(json!({ "text": "x".repeat(100) })))).collect();
    let whole = diff(&steps);
    assert_eq!(cut(whole.clone(), 100_000), whole);
    let names = cut(whole.clone(), 4_000);
    assert!(names.fields_omitted && names.resources.len() == 50 && names.encoded_len() <= 4_000);
    let some = cut(whole, 500);
    assert!(some.encoded_len() <= 500 && some.resources_omitted > 0);
    assert_eq!(some.resources.len() + some.resources_omitted as usize, 50);
}
