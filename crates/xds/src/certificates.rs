//! The certificate API of Istio's agents, and beside it ours for news of the roots: messages, server and client.
//!
//! `istio.v1.auth.IstioCertificateService/CreateCertificate` signs a request. `maille.v1.Trust/Next` answers when there is
//! something new to believe, or a new authority to get a certificate from; asking again says that the last was taken.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError, http};
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::types::Struct;

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// The request in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// For how many seconds; what is not positive leaves it to the CA.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// More about the caller.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// The leaf first, one certificate each; the last holds every root.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// What its holder has, and whether it is leaving.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrustRequest {
    /// The number of the certificate it holds.
    #[prost(string, tag = "1")]
    pub serial: String,
    /// The hash of the roots it believes.
    #[prost(string, tag = "2")]
    pub trust: String,
    /// The authority it last heard of.
    #[prost(string, tag = "3")]
    pub authority: String,
    /// It ends, and its certificate with it.
    #[prost(bool, tag = "4")]
    pub leaving: bool,
}

/// What is to be believed, and who signs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrustResponse {
    /// Every root in PEM.
    #[prost(string, tag = "1")]
    pub roots: String,
    /// Their hash.
    #[prost(string, tag = "2")]
    pub trust: String,
    /// The key that signs.
    #[prost(string, tag = "3")]
    pub authority: String,
}

/// What answers.
#[tonic::async_trait]
pub trait Certificates: Send + Sync + 'static {
    /// Signs a request.
    async fn create(&self, request: Request<CertificateRequest>) -> Result<Response<CertificateResponse>, Status>;
    /// Answers when there is news, or after a while when there is none.
    async fn next(&self, request: Request<TrustRequest>) -> Result<Response<TrustResponse>, Status>;
}

const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const NEXT: &str = "/maille.v1.Trust/Next";

/// No request is larger.
const MAX_REQUEST: usize = 64 << 10;

/// No answer is larger.
const MAX_RESPONSE: usize = 4 << 20;

/// Istio's service, for a tonic router.
pub struct CertificateServer<C>(pub Arc<C>);

/// Ours, for a tonic router.
pub struct TrustServer<C>(pub Arc<C>);

struct Create<C>(Arc<C>);
struct Next<C>(Arc<C>);

impl<C: Certificates> UnaryService<CertificateRequest> for Create<C> {
    type Response = CertificateResponse;
    type Future = BoxFuture<'static, Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let certificates = self.0.clone();
        Box::pin(async move { certificates.create(request).await })
    }
}

impl<C: Certificates> UnaryService<TrustRequest> for Next<C> {
    type Response = TrustResponse;
    type Future = BoxFuture<'static, Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<TrustRequest>) -> Self::Future {
        let certificates = self.0.clone();
        Box::pin(async move { certificates.next(request).await })
    }
}

macro_rules! server {
    ($server:ident, $name:literal, $path:expr, $method:ident, $request:ty, $response:ty) => {
        impl<C> Clone for $server<C> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<C> NamedService for $server<C> {
            const NAME: &'static str = $name;
        }

        impl<C: Certificates, B> tonic::codegen::Service<http::Request<B>> for $server<C>
        where
            B: HttpBody + Send + 'static,
            B::Error: Into<StdError> + Send + 'static,
        {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                let certificates = self.0.clone();
                Box::pin(async move {
                    if request.uri().path() != $path {
                        return Ok(Status::unimplemented("there is no such method").into_http());
                    }
                    let codec: ProstCodec<$response, $request> = ProstCodec::default();
                    let mut grpc = tonic::server::Grpc::new(codec)
                        .apply_max_message_size_config(Some(MAX_REQUEST), Some(MAX_RESPONSE));
                    Ok(grpc.unary($method(certificates), request).await)
                })
            }
        }
    };
}

server!(
    CertificateServer,
    "istio.v1.auth.IstioCertificateService",
    CREATE,
    Create,
    CertificateRequest,
    CertificateResponse
);
server!(TrustServer, "maille.v1.Trust", NEXT, Next, TrustRequest, TrustResponse);

/// Asks a control plane.
#[derive(Clone, Debug)]
pub struct CertificateClient<T>(tonic::client::Grpc<T>);

impl<T> CertificateClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// Over a channel.
    pub fn new(channel: T) -> Self {
        Self(tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE))
    }

    /// Has a request signed.
    pub async fn create(&mut self, request: Request<CertificateRequest>) -> Result<CertificateResponse, Status> {
        self.call(request, CREATE).await
    }

    /// Waits for news.
    pub async fn next(&mut self, request: Request<TrustRequest>) -> Result<TrustResponse, Status> {
        self.call(request, NEXT).await
    }

    async fn call<Q, R>(&mut self, request: Request<Q>, path: &'static str) -> Result<R, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let not_ready = |error: T::Error| Status::unavailable(error.into().to_string());
        self.0.ready().await.map_err(not_ready)?;
        let codec: ProstCodec<Q, R> = ProstCodec::default();
        let response = self.0.unary(request, http::uri::PathAndQuery::from_static(path), codec).await?;
        Ok(response.into_inner())
    }
}
