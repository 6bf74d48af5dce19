//! Which settings hold for one cluster: the rule's, its port's, its subset's, the mesh's.

use maille_api::mesh::MeshConfig;
use maille_api::networking::destination_rule::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, OutlierDetection,
    ProxyProtocol, RetryBudget, Subset, TrafficPolicy, TunnelSettings,
};

/// The settings that hold, each as its author wrote it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy<'a> {
    pub(crate) connection_pool: Option<&'a ConnectionPoolSettings>,
    pub(crate) outlier_detection: Option<&'a OutlierDetection>,
    pub(crate) load_balancer: Option<&'a LoadBalancerSettings>,
    pub(crate) tls: Option<&'a ClientTlsSettings>,
    pub(crate) proxy_protocol: Option<&'a ProxyProtocol>,
    pub(crate) retry_budget: Option<&'a RetryBudget>,
    pub(crate) tunnel: Option<&'a TunnelSettings>,
}

impl<'a> Policy<'a> {
    /// For a port of a host, or of one of its subsets.
    pub(crate) fn new(
        mesh: &'a MeshConfig,
        rule: Option<&'a DestinationRule>,
        subset: Option<&'a Subset>,
        port: u32,
    ) -> Policy<'a> {
        let of_host = rule.and_then(|rule| rule.traffic_policy.as_ref());
        let of_host = of_host.map(|policy| Policy::of_port(policy, port).0).unwrap_or_default().over_mesh(mesh);
        match subset.and_then(|subset| subset.traffic_policy.as_ref()) {
            None => of_host,
            Some(policy) => {
                let (of_subset, replaces) = Policy::of_port(policy, port);
                of_subset.over(of_host, replaces)
            }
        }
    }

    /// The TLS mode that a rule asks of the endpoints of a port, whether or not a port's other settings hide it.
    pub(crate) fn tls_mode(rule: &DestinationRule, subset: Option<&Subset>, port: u32) -> Option<ClientTlsMode> {
        let of_policy = |policy: &TrafficPolicy| {
            let mut own = policy.port_level_settings.iter();
            let own = own.find(|own| own.port.as_ref().is_some_and(|selector| selector.number == port));
            own.and_then(|own| own.tls.as_ref()).or(policy.tls.as_ref()).map(|tls| tls.mode)
        };
        let of_subset = subset.and_then(|subset| subset.traffic_policy.as_ref()).and_then(of_policy);
        of_subset.or_else(|| rule.traffic_policy.as_ref().and_then(of_policy))
    }

    /// A port's own settings replace the others as a whole: what they leave out has its default again.
    fn of_port(policy: &'a TrafficPolicy, port: u32) -> (Policy<'a>, bool) {
        let mut own = policy.port_level_settings.iter();
        match own.find(|own| own.port.as_ref().is_some_and(|selector| selector.number == port)) {
            Some(own) => {
                let policy = Policy {
                    connection_pool: own.connection_pool.as_ref(),
                    outlier_detection: own.outlier_detection.as_ref(),
                    load_balancer: own.load_balancer.as_ref(),
                    tls: own.tls.as_ref(),
                    ..Policy::default()
                };
                (policy, true)
            }
            None => {
                let policy = Policy {
                    connection_pool: policy.connection_pool.as_ref(),
                    outlier_detection: policy.outlier_detection.as_ref(),
                    load_balancer: policy.load_balancer.as_ref(),
                    tls: policy.tls.as_ref(),
                    proxy_protocol: policy.proxy_protocol.as_ref(),
                    retry_budget: policy.retry_budget.as_ref(),
                    tunnel: policy.tunnel.as_ref(),
                };
                (policy, false)
            }
        }
    }

    fn over_mesh(mut self, mesh: &'a MeshConfig) -> Policy<'a> {
        if let Some(default) = &mesh.default_traffic_policy {
            self.connection_pool = self.connection_pool.or(default.connection_pool.as_ref());
            self.outlier_detection = self.outlier_detection.or(default.outlier_detection.as_ref());
        }
        self
    }

    /// A subset's settings above the host's, block by block, or replacing them where the subset speaks of the port.
    fn over(self, under: Policy<'a>, replaces: bool) -> Policy<'a> {
        let keep = !replaces;
        Policy {
            connection_pool: self.connection_pool.or(under.connection_pool.filter(|_| keep)),
            outlier_detection: self.outlier_detection.or(under.outlier_detection.filter(|_| keep)),
            load_balancer: self.load_balancer.or(under.load_balancer.filter(|_| keep)),
            tls: self.tls.or(under.tls.filter(|_| keep)),
            proxy_protocol: self.proxy_protocol.or(under.proxy_protocol),
            retry_budget: self.retry_budget.or(under.retry_budget),
            tunnel: self.tunnel.or(under.tunnel),
        }
    }
}
