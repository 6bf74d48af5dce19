//! AuthorizationPolicy: who may do what. Reference: <https://istio.io/latest/docs/reference/config/security/authorization-policy/>.

use crate::message::{message, proto_enum};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// What is allowed, denied, noted, or left to somebody else's judgement.
    pub struct AuthorizationPolicy {
        pub selector: Option<WorkloadSelector>,
        pub target_ref: Option<PolicyTargetReference>,
        pub target_refs: Vec<PolicyTargetReference>,
        pub rules: Vec<Rule>,
        pub action: Action,
    }
    /// What an action needs to be told.
    oneof action_detail: ActionDetail {
        provider => Provider(ExtensionProvider),
    }
}

proto_enum! {
    /// What becomes of a request that a rule matches.
    pub enum Action {
        Allow = 0 "ALLOW",
        Deny = 1 "DENY",
        Audit = 2 "AUDIT",
        Custom = 3 "CUSTOM",
    }
}

message! {
    /// Who judges instead, by its name in the mesh's settings.
    pub struct ExtensionProvider {
        pub name: String,
    }
}

message! {
    /// Matches when one of `from`, one of `to` and all of `when` do; what is absent matches everything.
    pub struct Rule {
        pub from: Vec<RuleFrom>,
        pub to: Vec<RuleTo>,
        pub when: Vec<Condition>,
    }
}

message! {
    /// A source.
    pub struct RuleFrom {
        pub source: Option<Source>,
    }
}

message! {
    /// An operation.
    pub struct RuleTo {
        pub operation: Option<Operation>,
    }
}

message! {
    /// Where a request comes from: all fields that are set have to match, by one of their values.
    pub struct Source {
        pub principals: Vec<String>,
        pub not_principals: Vec<String>,
        pub request_principals: Vec<String>,
        pub not_request_principals: Vec<String>,
        pub namespaces: Vec<String>,
        pub not_namespaces: Vec<String>,
        pub service_accounts: Vec<String>,
        pub not_service_accounts: Vec<String>,
        pub ip_blocks: Vec<String>,
        pub not_ip_blocks: Vec<String>,
        pub remote_ip_blocks: Vec<String>,
        pub not_remote_ip_blocks: Vec<String>,
        pub trust_domains: Vec<String>,
        pub not_trust_domains: Vec<String>,
    }
}

message! {
    /// What a request asks for: all fields that are set have to match, by one of their values.
    pub struct Operation {
        pub hosts: Vec<String>,
        pub not_hosts: Vec<String>,
        pub ports: Vec<String>,
        pub not_ports: Vec<String>,
        pub methods: Vec<String>,
        pub not_methods: Vec<String>,
        pub paths: Vec<String>,
        pub not_paths: Vec<String>,
    }
}

message! {
    /// One more attribute of the request.
    pub struct Condition {
        pub key: String,
        pub values: Vec<String>,
        pub not_values: Vec<String>,
    }
}

impl AuthorizationPolicy {
    /// The annotation that has a policy tried without effect.
    pub const DRY_RUN: &'static str = "istio.io/dry-run";

    /// The name of the provider of a `CUSTOM` policy; empty when there is none.
    pub fn provider(&self) -> &str {
        self.action_detail.as_ref().map_or("", |ActionDetail::Provider(provider)| &provider.name)
    }
}
