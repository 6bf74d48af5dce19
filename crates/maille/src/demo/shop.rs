//! The bookshop: its workloads, and its configuration as anybody would write it.

use std::path::Path;
use std::{fs, io};

/// A workload: its service, and its version.
pub(super) const WORKLOADS: [(&str, &str); 6] = [
    ("productpage", "v1"),
    ("details", "v1"),
    ("reviews", "v1"),
    ("reviews", "v2"),
    ("reviews", "v3"),
    ("ratings", "v1"),
];

/// The port of every service.
pub(super) const PORT: u16 = 9080;

/// One line per request, from every sidecar and the gateway: what the live table is made of.
pub(super) const LOG_MARK: &str = "maille-demo";

/// Writes the configuration into a folder that `maille up` watches.
pub(super) fn write(folder: &Path, gateway_port: u16) -> io::Result<()> {
    let services: Vec<String> = ["productpage", "details", "reviews", "ratings"].map(service).into();
    fs::write(folder.join("services.yaml"), services.join("---\n"))?;
    fs::write(folder.join("gateway.yaml"), gateway(gateway_port))?;
    fs::write(folder.join("reviews.yaml"), REVIEWS)?;
    fs::write(folder.join("mesh.yaml"), MESH.replace("MARK", LOG_MARK))
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: {PORT}}}]
"
    )
}

fn gateway(port: u16) -> String {
    format!(
        "# The way in.
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: bookshop}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: {port}, name: http, protocol: HTTP}}
    hosts: [\"*\"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: bookshop}}
spec:
  hosts: [\"*\"]
  gateways: [bookshop]
  http:
  - match: [{{uri: {{exact: /productpage}}}}]
    route: [{{destination: {{host: productpage, port: {{number: {PORT}}}}}}}]
"
    )
}

/// One line a version, so that `sed` finds its weight.
const REVIEWS: &str = "\
# Who gets which version of the reviews. Save this file, and the next request obeys.
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 40}
    - {destination: {host: reviews, subset: v2}, weight: 30}
    - {destination: {host: reviews, subset: v3}, weight: 30}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
";

const MESH: &str = "\
# Settings of the whole mesh: an access log, from which `maille demo` draws its table.
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    accessLogFormat: \"MARK %UPSTREAM_CLUSTER% %RESPONSE_CODE% %DURATION%\\n\"
";

#[cfg(test)]
mod tests {
    #[test]
    fn the_configuration_is_valid_and_the_things_to_try_find_what_they_change() {
        let folder = tempfile::tempdir().unwrap();
        super::write(folder.path(), 8080).unwrap();
        let checked = maille_store::files::check(&[folder.path().to_owned()]).unwrap();
        assert_eq!(checked.diagnostics, []);
        assert_eq!(checked.objects.len(), 4 + 2 + 2 + 1);
        for weight in ["v1}, weight: 40", "v2}, weight: 30", "v3}, weight: 30"] {
            assert_eq!(super::REVIEWS.matches(weight).count(), 1);
        }
    }
}
