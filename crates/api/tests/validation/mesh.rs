//! MeshConfig.

use maille_api::parse::mesh_config;

#[test]
fn mesh_settings() {
    for (text, said) in [
        ("", &[][..]),
        ("accessLogFile: /dev/stdout", &[]),
        ("proxyListenPort: 0", &["proxyListenPort"]),
        ("connectTimeout: 2h", &["connectTimeout"]),
        ("connectTimeout: 0.1ms", &["connectTimeout"]),
        ("protocolDetectionTimeout: 0s", &[]),
        ("trustDomain: no_name", &["trustDomain"]),
        ("trustDomainAliases: [a.b, '']", &["trustDomainAliases"]),
        ("serviceSettings: [{hosts: ['*.a', a_b]}]", &["serviceSettings[0].hosts[1]"]),
        ("meshMTLS: {ecdhCurves: [P-256]}", &["meshMTLS.ecdhCurves"]),
        ("tlsDefaults: {ecdhCurves: [P-256, ODD]}", &["tlsDefaults.ecdhCurves[1]"]),
        ("localityLbSetting: {failover: [{from: a, to: a}]}", &["localityLbSetting.failover[0]"]),
        ("defaultHttpRetryPolicy: {retryOn: 5xx}", &["defaultHttpRetryPolicy.attempts"]),
        ("defaultConfig: {discoveryAddress: a}", &["defaultConfig.discoveryAddress"]),
        ("defaultConfig: {discoveryAddress: 'a.com:70000'}", &["defaultConfig.discoveryAddress"]),
        ("defaultConfig: {drainDuration: 1.5s}", &["defaultConfig.drainDuration"]),
        ("defaultConfig: {statusPort: 0}", &["defaultConfig.statusPort"]),
        ("defaultConfig: {tracing: {zipkin: {address: '$(HOST_IP):9411'}}}", &[]),
        ("defaultConfig: {tracing: {zipkin: {address: a}}}", &["defaultConfig.tracing.zipkin.address"]),
        (
            "defaultConfig: {connectionSettings: {http2InitialStreamWindowSize: 1}}",
            &["defaultConfig.connectionSettings.http2InitialStreamWindowSize"],
        ),
    ] {
        let (config, diagnostics) = mesh_config(text, "mesh");
        let begins: Vec<&str> = diagnostics.iter().filter_map(|found| found.message.split(": ").next()).collect();
        assert_eq!(begins, said, "{text}\n{diagnostics:#?}");
        assert_eq!(config.is_some(), !diagnostics.iter().any(maille_api::Diagnostic::is_error), "{text}");
    }
}
