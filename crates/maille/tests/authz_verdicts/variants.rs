//! A set as upstream has it, and each condition of its rules alone.

use maille_api::parse;
use serde_json::{Value, json};

use crate::ask::Ask;
use crate::planes;
use crate::sets::{Set, normal};
use crate::yaml;

/// Policies, the filters they must become, and the requests that are judged.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) set: String,
    pub(crate) name: String,
    pub(crate) http: bool,
    pub(crate) mesh: String,
    /// As JSON objects.
    pub(crate) policies: Vec<Value>,
    pub(crate) expected: Vec<Value>,
    /// How many requests there are at most.
    pub(crate) limit: usize,
    pub(crate) requests: Vec<Ask>,
}

/// Conditions of a rule beyond which each is judged alone.
const MANY: usize = 4;

pub(crate) fn of(set: &Set) -> Vec<Variant> {
    let policies: Vec<Value> = parse::documents(&sendable(&set.policies), "set")
        .into_iter()
        .map(|parsed| parsed.unwrap_or_else(|diagnostic| panic!("{diagnostic}")).object.to_json())
        .collect();
    let whole = Variant {
        set: set.name.clone(),
        name: set.name.clone(),
        http: set.http,
        mesh: patient(&set.mesh),
        expected: set.expected.iter().map(|filter| yaml::read(&patient(&sendable(filter)))).collect(),
        policies,
        limit: 80,
        requests: Vec::new(),
    };
    let alone = alone(&whole);
    std::iter::once(whole).chain(alone).collect()
}

/// Names that no HTTP message and no certificate can carry, spelled so that they can.
fn sendable(text: &str) -> String {
    let paths = regex::Regex::new(r"(rule\[\d\]-to\[\d\]-path\[\d\])").unwrap();
    let text = paths.replace_all(text, "/$1");
    // Policies are called `ns[foo]-policy[httpbin]-rule[0]`, and keep their names.
    let numbers = regex::Regex::new(r"(\]-rule\[\d+\])|([A-Za-z])\\?\[(\d)\\?\]").unwrap();
    let spell = |found: &regex::Captures<'_>| match found.get(1) {
        Some(name) => name.as_str().to_owned(),
        None => format!("{}-{}", &found[2], &found[3]),
    };
    numbers.replace_all(&text, spell).into_owned()
}

/// Two milliseconds are too few for a test.
fn patient(text: &str) -> String {
    text.replace("0.002s", "10s")
}

/// Each condition of the rules that have many.
fn alone(whole: &Variant) -> Vec<Variant> {
    let [policy] = &whole.policies[..] else { return Vec::new() };
    let [filter] = &whole.expected[..] else { return Vec::new() };
    let mut found = Vec::new();
    for (i, rule) in policy["spec"]["rules"].as_array().into_iter().flatten().enumerate() {
        let parts = parts(rule);
        if parts.len() <= MANY {
            continue;
        }
        for (name, part) in parts {
            let mut policy = policy.clone();
            policy["spec"]["rules"] = json!([part]);
            let name = format!("{} rule {i} {name}", whole.name);
            let mut variant = Variant {
                set: whole.set.clone(),
                http: whole.http,
                mesh: whole.mesh.clone(),
                policies: vec![policy],
                expected: Vec::new(),
                limit: 14,
                requests: Vec::new(),
                name,
            };
            variant.expected = vec![expected_alone(&variant, filter, i)];
            found.push(variant);
        }
    }
    found
}

/// A rule for each of a rule's conditions.
fn parts(rule: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for (list, inner) in [("from", "source"), ("to", "operation")] {
        for (i, item) in items(&rule[list]).iter().enumerate() {
            for (field, values) in item[inner].as_object().into_iter().flatten() {
                found.push((format!("{list}[{i}].{field}"), json!({list: [{inner: {field: values}}]})));
            }
        }
    }
    for when in items(&rule["when"]) {
        for field in ["values", "notValues"] {
            if let Some(values) = when.get(field) {
                let name = format!("{} {field}", when["key"].as_str().unwrap());
                found.push((name, json!({"when": [{"key": when["key"], field: values}]})));
            }
        }
    }
    found
}

/// The part of upstream's filter that stands for the one condition that is left: ours says which, and it has to be there.
fn expected_alone(variant: &Variant, filter: &Value, rule: usize) -> Value {
    let ours = planes::filters_of_policies(variant);
    let rules = |filter: &Value| filter["typedConfig"]["rules"]["policies"].clone();
    let policy_of = |filter: &Value, rule: usize| {
        let policies = rules(filter);
        let found =
            policies.as_object().into_iter().flatten().find(|(name, _)| name.ends_with(&format!("rule[{rule}]")));
        found.map(|(name, policy)| (name.clone(), policy.clone()))
    };
    let ours = normal(&ours[0]);
    let (mut expected, theirs) = (filter.clone(), policy_of(filter, rule));
    let kept = policy_of(&ours, 0).map(|(_, policy)| policy);
    // A rule that says nothing at all there, as HTTP conditions on TCP, is none.
    let (Some(kept), Some((name, theirs))) = (kept, theirs) else {
        expected["typedConfig"]["rules"]["policies"] = json!({});
        return expected;
    };
    let take = |list: &str, all: &str, inner: &str| {
        let wanted = &kept[list][0][all][inner];
        let [wanted] = wanted.as_array().map(Vec::as_slice).unwrap_or_default() else { panic!("{list}: {kept}") };
        if *wanted == json!({"any": true}) {
            return json!([{all: {inner: [wanted]}}]);
        }
        let choices = theirs[list].as_array().into_iter().flatten().flat_map(|choice| choice[all][inner].as_array());
        let found = choices.flatten().find(|theirs| normal(theirs) == *wanted);
        let found = found.unwrap_or_else(|| panic!("{}: upstream has no {wanted} in {theirs}", variant.name));
        json!([{all: {inner: [found]}}])
    };
    let policy = json!({
        "permissions": take("permissions", "andRules", "rules"),
        "principals": take("principals", "andIds", "ids"),
    });
    expected["typedConfig"]["rules"]["policies"] = json!({name: policy});
    expected
}
