//! Upstream's policy sets, and requests that hit and just miss each of their values, judged three times: by a real Envoy with
//! upstream's expected filters, by our proxy with the filters that we make of the policies, and by `maille explain`.
//!
//! A policy of many conditions hardly ever matches, so each of its conditions is judged alone as well. Addresses of policies
//! and filters are moved into 127.0.0.0/8, which is all a test has; ports are the policies' own, so it runs in a network namespace
//! of its own, as root or in a user namespace. The seed is fixed; `AUTHZ_SEED` is another one.

mod ask;
mod client;
mod explain;
mod generate;
mod helpers;
mod planes;
#[path = "../../../translate/tests/policies/sets.rs"]
mod sets;
#[path = "../../../translate/tests/policies/sidecar.rs"]
mod sidecar;
mod variants;
#[path = "../../../translate/tests/policies/yaml.rs"]
mod yaml;

use std::collections::BTreeMap;
use std::process::Command;

use client::Client;
use helpers::Helpers;
use planes::Plane;
use variants::Variant;

/// Set where the network is the test's own.
const ALONE: &str = "AUTHZ_ALONE";

#[test]
fn the_same_verdict_from_envoy_from_maille_and_from_its_explanation() {
    let sets = sets::all();
    let Some(envoy) = planes::envoy().filter(|_| !sets.is_empty()) else { return };
    if std::env::var_os(ALONE).is_none() {
        return again_alone();
    }
    let seed = std::env::var("AUTHZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(folder.path());
    let helpers = Helpers::start();
    let mut variants: Vec<Variant> = sets.iter().flat_map(variants::of).collect();
    let mut addresses = generate::Addresses::new();
    for (number, variant) in variants.iter_mut().enumerate() {
        generate::requests(number, variant, &mut addresses, &mut random);
    }
    let judge = |plane: Plane| -> Vec<_> {
        let verdicts = variants.iter().map(|variant| client.verdicts(variant)).collect();
        drop(plane);
        verdicts
    };
    let (explained, ours, theirs) = std::thread::scope(|scope| {
        let explain = || -> Vec<_> { variants.iter().map(|variant| explain::verdicts(variant, &client)).collect() };
        let explained = scope.spawn(explain);
        let ours = judge(Plane::maille(&variants, &client, &helpers));
        let theirs = judge(Plane::envoy(&envoy, &variants, &client, &helpers, folder.path()));
        (explained.join().unwrap(), ours, theirs)
    });

    let (mut asked, mut wrong) = (BTreeMap::<&str, [usize; 2]>::new(), Vec::new());
    for (v, variant) in variants.iter().enumerate() {
        for (r, request) in variant.requests.iter().enumerate() {
            let (envoy, maille, explained) = (&theirs[v][r], &ours[v][r], &explained[v][r]);
            let counts = asked.entry(&variant.set).or_default();
            counts[0] += 1;
            counts[1] += usize::from(envoy.passes());
            if envoy != maille || envoy.short() != *explained {
                wrong.push(format!(
                    "{} {request:?}: Envoy {envoy:?}, maille {maille:?}, explained {explained}",
                    variant.name
                ));
            }
        }
    }
    for (set, [asked, passed]) in &asked {
        println!("{set:<48}{asked:>5} requests, {passed:>4} pass");
        assert!(*asked >= 40, "only {asked} requests for {set}");
    }
    let total: usize = asked.values().map(|[asked, _]| asked).sum();
    assert!(wrong.is_empty(), "{} of {total}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
    println!("{total} requests, the same verdict from all three");
}

/// Runs this program again in a network namespace of its own.
fn again_alone() {
    // Who is not root becomes it in a user namespace.
    let alone = "PATH=$PATH:/usr/sbin; [ $(id -u) = 0 ] || map=--map-root-user
        exec unshare $map --net sh -c 'ip link set lo up && exec \"$0\" \"$@\"' \"$0\" \"$@\"";
    let status = Command::new("sh")
        .args(["-c", alone])
        .arg(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env(ALONE, "1")
        .status();
    assert!(status.is_ok_and(|status| status.success()), "it fails, or unshare (util-linux) or ip (iproute2) does");
}
