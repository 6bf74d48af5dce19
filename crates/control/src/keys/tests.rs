//! Keys under a clock that we move, and from a server of our own.

use std::sync::Mutex;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use maille_api::parse;

use super::*;

/// Answers by a script, and counts.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<BTreeMap<KeySource, Result<&'static str, &'static str>>>>,
    asked: Arc<Mutex<Vec<KeySource>>>,
}

impl FetchKeys for Script {
    fn fetch(&self, source: KeySource) -> Fetched {
        self.asked.lock().unwrap().push(source.clone());
        let answer = self.answers.lock().unwrap().get(&source).cloned();
        Box::pin(async move {
            match answer {
                Some(answer) => answer.map(Arc::from).map_err(str::to_owned),
                None => std::future::pending().await,
            }
        })
    }
}

impl Script {
    fn set(&self, uri: &str, answer: Result<&'static str, &'static str>) {
        self.answers.lock().unwrap().insert(KeySource::Uri(uri.into()), answer);
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn policies(rules: &[&str]) -> Vec<Arc<Object>> {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: a}}\nspec: {{jwtRules: [{}]}}\n",
        rules.join(", ")
    );
    let loaded = parse::load(&text, "test");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.objects
}

fn uri(uri: &str) -> KeySource {
    KeySource::Uri(uri.into())
}

#[tokio::test(start_paused = true)]
async fn keys_are_waited_for_once_kept_and_fetched_again() {
    let script = Script::default();
    script.set("https://a", Ok("one"));
    let (mut keys, work) = Keys::new(script.clone());
    let work = tokio::spawn(work);
    let objects = policies(&["{issuer: a, jwksUri: 'https://a'}", "{issuer: b, jwks: '{\"keys\": []}'}"]);
    assert_eq!(keys.of(&objects).await.get(&uri("https://a")).map(|keys| &**keys), Some("one"));
    keys.of(&objects).await;
    assert_eq!(script.count(), 1, "what is known is not asked for");

    script.set("https://a", Ok("two"));
    keys.changed().await;
    assert_eq!(keys.of(&objects).await.get(&uri("https://a")).map(|keys| &**keys), Some("two"));
    assert_eq!(script.count(), 2);

    script.set("https://a", Err("down"));
    tokio::time::sleep(REFRESH * 3).await;
    assert!(script.count() > 3, "it is asked again, and again");
    assert_eq!(keys.of(&objects).await.get(&uri("https://a")).map(|keys| &**keys), Some("two"), "and its keys stay");

    assert!(keys.of(&[]).await.len() <= 1);
    keys.changed().await;
    assert!(keys.of(&[]).await.is_empty(), "nobody wants them any more");
    work.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_place_holds_up_nothing_for_long() {
    let script = Script::default();
    script.set("https://good", Ok("keys"));
    script.set("https://bad", Err("no"));
    let (mut keys, work) = Keys::new(script.clone());
    let work = tokio::spawn(work);
    let objects = policies(&[
        "{issuer: a, jwksUri: 'https://silent'}",
        "{issuer: b, jwksUri: 'https://good'}",
        "{issuer: c, jwksUri: 'https://bad'}",
    ]);
    let started = Instant::now();
    let sets = keys.of(&objects).await;
    assert!(started.elapsed() <= LONGEST_WAIT);
    assert_eq!(sets.keys().collect::<Vec<_>>(), [&uri("https://good")]);
    script.set("https://bad", Ok("late"));
    while keys.of(&objects).await.len() < 2 {
        keys.changed().await;
    }
    work.abort();
}

#[tokio::test]
async fn keys_come_from_a_server() {
    let set = r#"{"keys": []}"#;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let document = format!(r#"{{"jwks_uri": "{base}/moved"}}"#);
    let router = Router::new()
        .route("/keys", get(move || async move { set }))
        .route("/moved", get(|| async { Redirect::temporary("/keys") }))
        .route("/round", get(|| async { Redirect::temporary("/round") }))
        .route("/page", get(|| async { "<html>" }))
        .route("/huge", get(|| async { "a".repeat(LONG) }))
        .route("/.well-known/openid-configuration", get(move || async move { document }));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let web = Web::new();
    let of = |path: &str| web.fetch(uri(&format!("{base}{path}")));
    assert_eq!(of("/keys").await.as_deref(), Ok(set));
    assert_eq!(of("/moved").await.as_deref(), Ok(set));
    assert_eq!(web.fetch(KeySource::Discovery(format!("{base}/"))).await.as_deref(), Ok(set));
    for (path, why) in [
        ("/round", "one redirection too many"),
        ("/page", "is not a key set"),
        ("/huge", "length limit"),
        ("/none", "answers 404"),
    ] {
        let reason = of(path).await.unwrap_err();
        assert!(reason.contains(why), "{path}: {reason}");
    }
    server.abort();
}

const LONG: usize = 2 << 20;
