//! The bookshop's services: small HTTP servers that call each other through their sidecars.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::client::Client;
use crate::failure::{Failure, Outcome};

/// The share of its requests that the broken version of reviews fails.
const BROKEN_SHARE: f64 = 0.3;

/// Headers that say who asks, or tie the parts of one request together: passed on, as any service in a mesh should.
const PASSED_ON: [&str; 4] = ["end-user", "x-request-id", "traceparent", "tracestate"];

/// One service of the bookshop, listening on 127.0.0.1:$PORT
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one
    service: Service,

    /// Its version
    #[arg(long, default_value = "v1")]
    version: String,

    /// Where to listen
    #[arg(long, env = "PORT")]
    port: u16,

    /// The sidecar to ask others through, as http://ADDRESS:PORT
    #[arg(long, env = "http_proxy")]
    proxy: String,
}

/// The services there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

/// One running service.
struct App {
    service: Service,
    version: String,
    others: Client,
}

/// What a service answers.
struct Answer {
    status: StatusCode,
    body: Value,
}

pub(crate) fn run(args: Args) -> Outcome {
    let proxy: SocketAddr = args.proxy.trim_start_matches("http://").trim_end_matches('/').parse().map_err(|_| {
        Failure::usage(format!(
            "http_proxy is {:?}: expected http://ADDRESS:PORT; start this by `maille run`",
            args.proxy
        ))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::running(format!("no event loop: {error}")))?;
    let app = App { service: args.service, version: args.version, others: Client::of(proxy) };
    runtime.block_on(serve(args.port, app))
}

async fn serve(port: u16, app: App) -> Outcome {
    let app = std::rc::Rc::new(app);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let listener = listener.map_err(|error| Failure::running(format!("cannot listen on port {port}: {error}")))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::running(format!("no signals: {error}")))?;
    let local = tokio::task::LocalSet::new();
    let accepting = local.run_until(async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors: the next connection may find one.
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            let app = app.clone();
            tokio::task::spawn_local(async move {
                let answer = service_fn(|request| {
                    let app = app.clone();
                    async move { Ok::<_, Infallible>(app.answer(request).await.into_response()) }
                });
                // A client that goes away is its own business.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    tokio::select! {
        () = accepting => {}
        _ = terminate.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let passed_on: HeaderMap = PASSED_ON
            .iter()
            .filter_map(|name| {
                request.headers().get(*name).map(|value| (hyper::header::HeaderName::from_static(name), value.clone()))
            })
            .collect();
        match self.service {
            Service::Productpage => self.productpage(&passed_on).await,
            Service::Details => self.details().await,
            Service::Reviews => self.reviews(&passed_on).await,
            Service::Ratings => self.ratings().await,
        }
    }

    async fn productpage(&self, headers: &HeaderMap) -> Answer {
        let (details, reviews) = tokio::join!(
            self.others.get("http://details:9080/details/0", headers),
            self.others.get("http://reviews:9080/reviews/0", headers)
        );
        match (details, reviews) {
            (Ok(details), Ok(reviews)) => {
                Answer::ok(json!({"page": "The Comedy of Errors", "details": details, "reviews": reviews}))
            }
            (details, reviews) => {
                let missing: Vec<String> = [details.err(), reviews.err()].into_iter().flatten().collect();
                Answer { status: StatusCode::INTERNAL_SERVER_ERROR, body: json!({"error": missing}) }
            }
        }
    }

    async fn details(&self) -> Answer {
        work(2, 5).await;
        Answer::ok(json!({"author": "William Shakespeare", "year": 1595, "pages": 200, "language": "English"}))
    }

    async fn reviews(&self, headers: &HeaderMap) -> Answer {
        let colour = match self.version.as_str() {
            "v1" => None,
            "v2" => Some("black"),
            _ => Some("red"),
        };
        work(1, 4).await;
        if colour == Some("red") && fastrand::f64() < BROKEN_SHARE {
            return Answer {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                body: json!({"error": format!("reviews {} is broken on purpose", self.version)}),
            };
        }
        let mut body = json!({"version": self.version, "reviews": ["An extremely entertaining play.", "Absolutely fun and entertaining."]});
        if let Some(colour) = colour {
            match self.others.get("http://ratings:9080/ratings/0", headers).await {
                Ok(ratings) => body["ratings"] = json!({"colour": colour, "stars": ratings["stars"]}),
                Err(error) => {
                    return Answer { status: StatusCode::INTERNAL_SERVER_ERROR, body: json!({"error": error}) };
                }
            }
        }
        Answer::ok(body)
    }

    async fn ratings(&self) -> Answer {
        // Now and then it is slow, as a database would be.
        if fastrand::f64() < 0.05 {
            work(40, 80).await
        } else {
            work(3, 9).await
        }
        Answer::ok(json!({"stars": [5, 4]}))
    }
}

/// Takes so many milliseconds, as real work would.
async fn work(least: u64, most: u64) {
    sleep(Duration::from_millis(fastrand::u64(least..=most))).await;
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(format!("{:#}\n", self.body))));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
