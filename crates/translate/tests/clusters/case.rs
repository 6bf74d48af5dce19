//! A case: resources, and the proxies they are translated for.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use maille_api::Object;
use maille_api::mesh::MeshConfig;
use maille_api::parse;
use maille_model::{Proxy, Snapshot};
use maille_translate::{proxy_from_node, translate};
use maille_xds::World;
use maille_xds::types::core::Node;
use maille_xds::types::{ListValue, Struct, Value, ValueKind};

pub(crate) struct Case {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) mesh: MeshConfig,
    pub(crate) proxies: Vec<Proxy>,
}

impl Case {
    pub(crate) fn read(path: &Path) -> Case {
        let text = fs::read_to_string(path).expect("case");
        let loaded = parse::load(&text, &path.display().to_string());
        assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
        let mut mesh = MeshConfig::default();
        for object in &loaded.objects {
            if let Some((config, problems)) = parse::mesh_config_of(object) {
                mesh = config.unwrap_or_else(|| panic!("{problems:#?}"));
            }
        }
        let proxies = text.lines().filter_map(|line| line.strip_prefix("# proxy: ")).map(proxy).collect();
        Case { objects: loaded.objects, mesh, proxies }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::build(&self.objects, &self.mesh)
    }

    pub(crate) fn worlds(&self) -> Vec<(Proxy, World)> {
        let snapshot = self.snapshot();
        self.proxies.iter().map(|proxy| (proxy.clone(), translate(&snapshot, proxy))).collect()
    }

    /// The same case with its objects in another order.
    pub(crate) fn shuffled(&self, seed: u64) -> Case {
        let mut objects = self.objects.clone();
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for i in (1..objects.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            objects.swap(i, (state >> 33) as usize % (i + 1));
        }
        Case { objects, mesh: self.mesh.clone(), proxies: self.proxies.clone() }
    }
}

/// `KIND NAMESPACE ADDRESS LABEL=VALUE,… {METADATA}`
fn proxy(line: &str) -> Proxy {
    let mut words = line.splitn(5, ' ');
    let mut next = || words.next().unwrap_or_default();
    let (kind, namespace, address, labels, metadata) = (next(), next(), next(), next(), next());
    let mut values: serde_json::Map<String, serde_json::Value> = match metadata {
        "" => Default::default(),
        json => serde_json::from_str(json).expect("metadata"),
    };
    let labels: serde_json::Map<_, _> =
        labels.split(',').filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.into())).collect();
    let name = labels.get("app").and_then(|app| app.as_str()).unwrap_or("x").to_owned();
    let locality = values.remove("LOCALITY").and_then(|l| l.as_str().map(maille_model::Locality::parse));
    values.insert("LABELS".into(), labels.into());
    values.insert("NAMESPACE".into(), namespace.into());
    let node = Node {
        id: format!("{kind}~{address}~{name}-{kind}.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(to_struct(values)),
        locality: locality.map(|l| maille_xds::types::core::Locality {
            region: l.region,
            zone: l.zone,
            sub_zone: l.subzone,
        }),
        ..Node::default()
    };
    proxy_from_node(&node).expect("node")
}

fn to_struct(values: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: values.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

fn to_value(value: serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => ValueKind::NullValue(0),
        serde_json::Value::Bool(value) => ValueKind::BoolValue(value),
        serde_json::Value::Number(number) => ValueKind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => ValueKind::StringValue(text),
        serde_json::Value::Array(values) => {
            ValueKind::ListValue(ListValue { values: values.into_iter().map(to_value).collect() })
        }
        serde_json::Value::Object(fields) => ValueKind::StructValue(to_struct(fields)),
    };
    Value { kind: Some(kind) }
}
