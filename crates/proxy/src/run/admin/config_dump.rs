//! `/config_dump`: what the control plane sent, as Envoy dumps it.

use maille_xds::TypeUrl;
use maille_xds::json::{Schema, timestamp};
use maille_xds::types::{Message, any};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::answer::View;
use super::query::Query;
use super::{Answer, Purpose, certs};
use crate::run::kept::{Sent, Version};

/// A list of resources in one of the dumps.
struct List {
    /// The dump's message, and the one of its elements.
    dump: &'static str,
    element: &'static str,
    field: &'static str,
    elements: Vec<Value>,
}

pub(super) fn answer(view: &View<'_>, query: &Query) -> Answer {
    let name = match query.get("name_regex").map(|text| Regex::new(&format!("^(?:{text})$"))) {
        Some(Ok(regex)) => Some(regex),
        Some(Err(error)) => return Answer::text(400, format!("name_regex: {error}\n")),
        None => None,
    };
    let schema = Schema::load();
    let dumps = Dumps { view, schema: &schema, name: name.as_ref() };
    let include_eds = query.has("include_eds");
    let mask: Vec<Vec<&str>> = query
        .get("mask")
        .map(|mask| mask.split(',').map(|path| path.split('.').collect()).collect())
        .unwrap_or_default();
    let Some(wanted) = query.get("resource") else {
        let mut configs = vec![dumps.bootstrap()];
        for (dump, lists) in group(dumps.lists(include_eds || !mask.is_empty())) {
            let mut out = Map::from_iter([("@type".to_owned(), admin_type(dump))]);
            if matches!(dump, "ClustersConfigDump" | "ListenersConfigDump") {
                out.insert("version_info".into(), "".into());
            }
            out.extend(
                lists
                    .into_iter()
                    .filter(|list| !list.elements.is_empty())
                    .map(|list| (list.field.to_owned(), list.elements.into())),
            );
            configs.push(Value::Object(out));
        }
        let eds = |config: &Value| config["@type"] == admin_type("EndpointsConfigDump");
        let configs: Vec<Value> = match mask.is_empty() {
            true => configs.into_iter().filter(|config| include_eds || !eds(config)).collect(),
            false => configs.into_iter().map(|config| trim(config, &mask)).collect(),
        };
        return Answer::json(&json!({"configs": configs}));
    };
    if wanted == "bootstrap" {
        let mut bootstrap = dumps.bootstrap()["bootstrap"].take();
        bootstrap["@type"] = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap".into();
        return Answer::json(&json!({"configs": [bootstrap]}));
    }
    let Some(list) = dumps.lists(true).into_iter().find(|list| list.field == wanted) else {
        return Answer::text(404, format!("{wanted} not found in config dump\n"));
    };
    let kind = admin_type(&format!("{}.{}", list.dump, list.element));
    let configs: Vec<Value> = list
        .elements
        .into_iter()
        .map(|mut element| {
            element["@type"] = kind.clone();
            if mask.is_empty() { element } else { trim(element, &mask) }
        })
        .collect();
    Answer::json(&json!({"configs": configs}))
}

fn admin_type(name: &str) -> Value {
    format!("type.googleapis.com/envoy.admin.v3.{name}").into()
}

/// Lists by dump, in their order.
fn group(lists: Vec<List>) -> Vec<(&'static str, Vec<List>)> {
    let mut out: Vec<(&'static str, Vec<List>)> = Vec::new();
    for list in lists {
        match out.iter_mut().find(|(dump, _)| *dump == list.dump) {
            Some((_, lists)) => lists.push(list),
            None => out.push((list.dump, vec![list])),
        }
    }
    out
}

/// Keeps only what the paths name. `@type` always stays.
fn trim(value: Value, mask: &[Vec<&str>]) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| trim(item, mask)).collect(),
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(name, value)| {
                let below: Vec<_> = mask
                    .iter()
                    .filter(|path| path.first() == Some(&name.as_str()))
                    .map(|path| path[1..].to_vec())
                    .collect();
                match below.as_slice() {
                    _ if name == "@type" => Some((name, value)),
                    [] => None,
                    paths if paths.iter().any(Vec::is_empty) => Some((name, value)),
                    paths => Some((name, trim(value, paths))),
                }
            });
            Value::Object(kept.collect())
        }
        other => other,
    }
}

struct Dumps<'a> {
    view: &'a View<'a>,
    schema: &'a Schema,
    name: Option<&'a Regex>,
}

impl Dumps<'_> {
    fn bootstrap(&self) -> Value {
        let process = self.view.process;
        let mut node =
            self.schema.print(&any(&process.node).type_url, &process.node.encode_to_vec()).unwrap_or_default();
        if let Some(fields) = node.as_object_mut() {
            fields.remove("@type");
        }
        let mut bootstrap = json!({"node": node});
        if let Some(address) = self.view.status.endpoint(Purpose::Admin) {
            let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
            bootstrap["admin"] = json!({"address": {"socket_address": socket}});
        }
        let mut out = json!({"bootstrap": bootstrap});
        out["@type"] = admin_type("BootstrapConfigDump");
        out
    }

    fn lists(&self, include_eds: bool) -> Vec<List> {
        let list = |dump, element, field, elements| List { dump, element, field, elements };
        let clusters = self.sent(TypeUrl::Cluster);
        let active = |name: &str| self.view.served.clusters.contains_key(name);
        let cluster = |sent: &Sent| {
            let mut out = self.taken(TypeUrl::Cluster, "cluster", sent.taken.as_ref());
            self.error_state(TypeUrl::Cluster, sent, &mut out);
            out
        };
        let (warm, cold): (Vec<_>, Vec<_>) = clusters.partition(|(name, sent)| active(name) || sent.taken.is_none());
        let mut lists = vec![
            list(
                "ClustersConfigDump",
                "DynamicCluster",
                "dynamic_active_clusters",
                warm.iter().map(|(_, s)| cluster(s)).collect(),
            ),
            list(
                "ClustersConfigDump",
                "DynamicCluster",
                "dynamic_warming_clusters",
                cold.iter().map(|(_, s)| cluster(s)).collect(),
            ),
        ];
        if include_eds {
            lists.push(list(
                "EndpointsConfigDump",
                "DynamicEndpointConfig",
                "dynamic_endpoint_configs",
                self.all(TypeUrl::Endpoint, "endpoint_config"),
            ));
        }
        lists.push(list("ListenersConfigDump", "DynamicListener", "dynamic_listeners", self.listeners()));
        let routes = self.all(TypeUrl::Route, "route_config");
        lists.push(list("RoutesConfigDump", "DynamicRouteConfig", "dynamic_route_configs", routes));
        let likes = |secret: &Value| {
            self.name.is_none_or(|regex| secret["name"].as_str().is_some_and(|name| regex.is_match(name)))
        };
        let own = certs::own_secrets(self.view).into_iter().filter(likes);
        let secrets = self.sent(TypeUrl::Secret).map(|(name, sent)| {
            let mut out = self.taken(TypeUrl::Secret, "secret", sent.taken.as_ref());
            out["name"] = (**name).into();
            self.error_state(TypeUrl::Secret, sent, &mut out);
            out
        });
        lists.push(list("SecretsConfigDump", "DynamicSecret", "dynamic_active_secrets", secrets.chain(own).collect()));
        lists
    }

    fn listeners(&self) -> Vec<Value> {
        let listener = |(name, sent): (&std::sync::Arc<str>, &Sent)| {
            let mut out = json!({"name": &**name});
            if sent.taken.is_some() {
                let state = if self.view.assembly.is_warming(name) { "warming_state" } else { "active_state" };
                out[state] = self.taken(TypeUrl::Listener, "listener", sent.taken.as_ref());
            }
            self.error_state(TypeUrl::Listener, sent, &mut out);
            out
        };
        self.sent(TypeUrl::Listener).map(listener).collect()
    }

    fn all(&self, type_url: TypeUrl, field: &str) -> Vec<Value> {
        let one = |(_, sent): (&std::sync::Arc<str>, &Sent)| {
            let mut out = self.taken(type_url, field, sent.taken.as_ref());
            self.error_state(type_url, sent, &mut out);
            out
        };
        self.sent(type_url).map(one).collect()
    }

    fn sent(&self, type_url: TypeUrl) -> impl Iterator<Item = (&std::sync::Arc<str>, &Sent)> {
        let likes = move |name: &str| self.name.is_none_or(|regex| regex.is_match(name));
        self.view.kept.resources(type_url).filter(move |(name, _)| likes(name))
    }

    fn taken(&self, type_url: TypeUrl, field: &str, version: Option<&Version>) -> Value {
        let Some(version) = version else { return json!({}) };
        let mut out = json!({"version_info": &*version.version, "last_updated": timestamp(version.at)});
        out[field] = self.schema.print(type_url.as_str(), &version.body).unwrap_or_default();
        out
    }

    fn error_state(&self, type_url: TypeUrl, sent: &Sent, out: &mut Value) {
        if let Some((version, reason)) = &sent.refused {
            let mut state = json!({
                "last_update_attempt": timestamp(version.at),
                "details": reason,
                "version_info": &*version.version,
            });
            // What does not even parse cannot be shown.
            if let Some(failed) = self.schema.print(type_url.as_str(), &version.body) {
                state["failed_configuration"] = failed;
            }
            out["error_state"] = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_what_they_name() {
        let value = json!({"@type": "t", "a": {"b": 1, "c": 2}, "d": [{"e": 1, "f": 2}, {"e": 3}], "g": 4});
        let mask = [vec!["a", "c"], vec!["d", "e"]];
        assert_eq!(trim(value, &mask), json!({"@type": "t", "a": {"c": 2}, "d": [{"e": 1}, {"e": 3}]}));
    }
}
