//! Asking the control plane: for a certificate, and for news of the roots.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use maille_identity::{Workload, ca, csr, pem, spiffe};
use maille_xds::certificates::{CertificateClient, CertificateRequest, TrustRequest, TrustResponse};
use maille_xds::types::{Struct, Value, ValueKind};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Enrolment, until};
use crate::door::{Door, DoorError};

/// A control plane that is there signs within this time.
const SIGNED: Duration = Duration::from_secs(10);

/// It answers, with or without news, within this time.
const ANSWERED: Duration = Duration::from_secs(60);

/// Why there is no certificate, or no news.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The way there.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The control plane refuses, or has gone.
    #[error("the control plane: {0}")]
    Refused(String),
    /// It takes too long.
    #[error("the control plane does not answer")]
    Silent,
    /// It answers nonsense.
    #[error("the control plane's answer cannot be used: {0}")]
    Answer(&'static str),
    /// Our own key.
    #[error(transparent)]
    Key(#[from] csr::CsrError),
}

/// A certificate that was obtained, and what came with it.
pub(super) struct Asked {
    pub(super) workload: Arc<Workload>,
    pub(super) serial: String,
    /// How long it was good for when it came.
    pub(super) life: Duration,
    /// The roots as PEM, and their hash.
    pub(super) roots: String,
    pub(super) trust: String,
    /// The authority we last heard of.
    pub(super) authority: String,
    /// Kept open for news; opened anew when it fails.
    channel: Option<Channel>,
}

/// Gets a certificate for a new key: with the one there is, else with the token.
pub(super) async fn certificate(enrolment: &Enrolment, held: Option<&Asked>) -> Result<Asked, AskError> {
    let live = held.filter(|held| !until(ca::not_after(&held.workload.chain[0])).is_zero());
    if let Some(held) = live {
        match attempt(enrolment, Some(held)).await {
            // Another control plane than the one we knew, perhaps: the token says who we are to that one, too.
            Err(error) if enrolment.door.has_token() => {
                tracing::debug!(%error, "the certificate is not accepted; showing the token");
            }
            outcome => return outcome,
        }
    }
    attempt(enrolment, None).await
}

async fn attempt(enrolment: &Enrolment, held: Option<&Asked>) -> Result<Asked, AskError> {
    let Enrolment { door, name, namespace, service_account } = enrolment;
    let (key, csr) = csr::generate()?;
    let text = |text: &str| Value { kind: Some(ValueKind::StringValue(text.into())) };
    let mut fields = vec![("NAMESPACE", text(namespace)), ("SERVICE_ACCOUNT", text(service_account))];
    fields.push(("WORKLOAD_NAME", text(name)));
    fields.extend(held.map(|held| ("REPLACES", text(&held.serial))));
    let metadata = Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() };
    let mut request = Request::new(CertificateRequest { csr, validity_duration: 0, metadata: Some(metadata) });
    if held.is_none() {
        door.authorize(request.metadata_mut())?;
    }
    let asking = async {
        let channel = door.channel(held.map(|held| &*held.workload)).await?;
        CertificateClient::new(channel).create(request).await.map_err(|status| refused(&status))
    };
    let answer = timeout(SIGNED, asking).await.map_err(|_| AskError::Silent)??;

    let (roots, chain) = answer.cert_chain.split_last().ok_or(AskError::Answer("it is empty"))?;
    let read = |text: &str| pem::certificates(text.as_bytes()).map_err(|_| AskError::Answer("it is not PEM"));
    let (chain, believed) = (read(&chain.concat())?, read(roots)?);
    let leaf = chain.first().ok_or(AskError::Answer("there is no certificate in it"))?;
    if believed.is_empty() {
        return Err(AskError::Answer("there are no roots in it"));
    }
    let id = spiffe::of_certificate(leaf).map_err(|_| AskError::Answer("the certificate names no workload"))?;
    if (id.namespace(), id.service_account()) != (namespace.as_str(), service_account.as_str()) {
        return Err(AskError::Answer("the certificate is somebody else's"));
    }
    Ok(Asked {
        serial: ca::serial(leaf),
        life: until(ca::not_after(leaf)),
        authority: ca::authority(leaf),
        trust: pem::fingerprint(&believed),
        roots: roots.clone(),
        workload: Arc::new(Workload { chain, key, roots: believed }),
        channel: None,
    })
}

impl Asked {
    /// Waits for news, saying by it what we have.
    pub(super) async fn news(&mut self, door: &Door) -> Result<TrustResponse, AskError> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => timeout(SIGNED, door.channel(Some(&self.workload))).await.map_err(|_| AskError::Silent)??,
        };
        let asking = CertificateClient::new(channel.clone()).next_for(self.request(false)).await;
        let news = asking?;
        self.channel = Some(channel);
        Ok(news)
    }

    /// Says that nobody holds this certificate any more.
    pub(super) async fn farewell(&self, door: &Door) -> Result<(), AskError> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => door.channel(Some(&self.workload)).await?,
        };
        CertificateClient::new(channel).next_for(self.request(true)).await?;
        Ok(())
    }

    fn request(&self, leaving: bool) -> TrustRequest {
        let (serial, trust, authority) = (self.serial.clone(), self.trust.clone(), self.authority.clone());
        TrustRequest { serial, trust, authority, leaving }
    }
}

/// Asking for news, in our own terms.
trait News {
    async fn next_for(self, request: TrustRequest) -> Result<TrustResponse, AskError>;
}

impl News for CertificateClient<Channel> {
    async fn next_for(mut self, request: TrustRequest) -> Result<TrustResponse, AskError> {
        let answer = timeout(ANSWERED, self.next(Request::new(request))).await.map_err(|_| AskError::Silent)?;
        answer.map_err(|status| refused(&status))
    }
}

fn refused(status: &Status) -> AskError {
    match status.source() {
        Some(cause) => AskError::Refused(crate::door::with_causes(cause)),
        None => AskError::Refused(status.message().to_owned()),
    }
}
