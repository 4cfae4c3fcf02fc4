//! What changes amount to: consecutive changes of one resource folded into one, and the fields in which its documents differ.
//!
//! Pure: no database, no clock. Called by `store::change` for dry runs and by the history RPCs.

use std::collections::{BTreeMap, btree_map::Entry};

use mcp_gateway::proto::admin::v1::{ConfigDiff, FieldDiff, ResourceDiff};
use prost::Message;
use serde_json::Value;

#[cfg(test)]
mod tests;

/// One resource before and after. Without either document, of a kind of which none is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The organisation's slug; empty outside organisations.
    pub org_slug: String,
    pub kind: String,
    /// The resource's name.
    pub resource: String,
    /// As recorded: what is said where no document is kept.
    pub operation: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Step {
    /// The same, undone.
    pub fn inverse(self) -> Self {
        let operation = match self.operation.as_str() {
            "create" => "delete",
            "delete" => "create",
            _ => "update",
        };
        Self { operation: operation.into(), before: self.after, after: self.before, ..self }
    }

    fn documented(&self) -> bool {
        self.before.is_some() || self.after.is_some()
    }
}

/// Folds steps, oldest first: one per resource, from its first `before` to its last `after`, without those that amount to nothing.
/// By organisation, kind and name.
pub fn fold(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    // Beside documents, steps without any say nothing.
    let mut folded: BTreeMap<(String, String, String), (bool, Step)> = BTreeMap::new();
    for step in steps {
        let documented = step.documented();
        match folded.entry((step.org_slug.clone(), step.kind.clone(), step.resource.clone())) {
            Entry::Vacant(vacant) => {
                vacant.insert((documented, step));
            }
            Entry::Occupied(mut same) => match (same.get_mut(), documented) {
                ((true, last), true) => last.after = step.after,
                ((true, _), false) => {}
                (last @ (false, _), documented) => *last = (documented, step),
            },
        }
    }
    let differs = |(documented, step): &(bool, Step)| !documented || step.before != step.after;
    folded.into_values().filter(differs).map(|(_, step)| named(step)).collect()
}

/// Names the operation after the documents, where there are any.
fn named(mut step: Step) -> Step {
    let operation = match (&step.before, &step.after) {
        (None, None) => return step,
        (None, Some(_)) => "create",
        (Some(_), None) => "delete",
        (Some(_), Some(_)) => "update",
    };
    step.operation = operation.into();
    step
}

/// What folded steps differ in.
pub fn diff(folded: &[Step]) -> ConfigDiff {
    let one = |step: &Step| ResourceDiff {
        organization: if step.org_slug.is_empty() { String::new() } else { format!("organizations/{}", step.org_slug) },
        kind: step.kind.clone(),
        resource: step.resource.clone(),
        operation: step.operation.clone(),
        fields: fields(step.before.as_ref(), step.after.as_ref()),
    };
    ConfigDiff { resources: folded.iter().map(one).collect(), fields_omitted: false, resources_omitted: 0 }
}

/// Cuts a difference to `bytes`: to the names, and then to as many names as fit.
pub fn cut(mut diff: ConfigDiff, bytes: usize) -> ConfigDiff {
    if diff.encoded_len() <= bytes {
        return diff;
    }
    diff.fields_omitted = true;
    diff.resources.iter_mut().for_each(|resource| resource.fields.clear());
    let mut left = bytes.saturating_sub(16); // the other fields
    let fit = diff.resources.iter().take_while(|resource| {
        let size = resource.encoded_len() + 4;
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    });
    let fit = fit.count();
    diff.resources_omitted = u32::try_from(diff.resources.len() - fit).unwrap_or(u32::MAX);
    diff.resources.truncate(fit);
    diff
}

/// The fields in which two documents differ, by path. The uid of something new or gone says nothing.
fn fields(before: Option<&Value>, after: Option<&Value>) -> Vec<FieldDiff> {
    let mut paths: BTreeMap<String, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
    for (path, value) in before.map(leaves).unwrap_or_default() {
        paths.entry(path).or_default().0 = Some(value);
    }
    for (path, value) in after.map(leaves).unwrap_or_default() {
        paths.entry(path).or_default().1 = Some(value);
    }
    if before.is_none() || after.is_none() {
        paths.remove("uid");
    }
    let json = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default();
    let differing = paths.into_iter().filter(|(_, (before, after))| before != after);
    differing.map(|(field, (before, after))| FieldDiff { field, before: json(before), after: json(after) }).collect()
}

/// Every value that is not taken apart, with its path. Lists of plain values are compared whole: an insertion moves the others.
fn leaves(document: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    take_apart(String::new(), document, &mut found);
    found
}

fn take_apart<'a>(path: String, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                take_apart(path, value, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                take_apart(format!("{path}[{index}]"), item, found);
            }
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push((path, value)),
    }
}
