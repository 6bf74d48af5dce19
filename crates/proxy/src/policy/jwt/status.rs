//! What is wrong with a token, in the words that clients of Envoy know.

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as_str says what each is")]
pub enum Status {
    Missing,
    NotYetValid,
    Expired,
    BadFormat,
    HeaderBadBase64,
    HeaderBadJson,
    HeaderBadAlg,
    HeaderUnknownAlg,
    HeaderBadKid,
    PayloadBadBase64,
    PayloadBadJson,
    IssNotString,
    SubNotString,
    IatNotInteger,
    IatOutOfRange,
    NbfNotInteger,
    NbfOutOfRange,
    ExpNotInteger,
    ExpOutOfRange,
    JtiNotString,
    AudNotString,
    SignatureBadBase64,
    Ed25519WrongLength,
    UnknownIssuer,
    AudienceNotAllowed,
    VerificationFails,
    NoValidKeys,
    NoMatchingKey,
    ClaimNotSendable,
}

impl Status {
    /// The response's body.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Missing => "Jwt is missing",
            Status::NotYetValid => "Jwt not yet valid",
            Status::Expired => "Jwt is expired",
            Status::BadFormat => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Status::HeaderBadBase64 => "Jwt header is an invalid Base64url encoded",
            Status::HeaderBadJson => "Jwt header is an invalid JSON",
            Status::HeaderBadAlg => "Jwt header [alg] field is required and must be a string",
            Status::HeaderUnknownAlg => "Jwt header [alg] is not supported",
            Status::HeaderBadKid => "Jwt header [kid] field is not a string",
            Status::PayloadBadBase64 => "Jwt payload is an invalid Base64url encoded",
            Status::PayloadBadJson => "Jwt payload is an invalid JSON",
            Status::IssNotString => "Jwt payload [iss] field is not a string",
            Status::SubNotString => "Jwt payload [sub] field is not a string",
            Status::IatNotInteger => "Jwt payload [iat] field is not an integer",
            Status::IatOutOfRange => "Jwt payload [iat] field is not a positive 64 bit integer",
            Status::NbfNotInteger => "Jwt payload [nbf] field is not an integer",
            Status::NbfOutOfRange => "Jwt payload [nbf] field is not a positive 64 bit integer",
            Status::ExpNotInteger => "Jwt payload [exp] field is not an integer",
            Status::ExpOutOfRange => "Jwt payload [exp] field is not a positive 64 bit integer",
            Status::JtiNotString => "Jwt payload [jti] field is not a string",
            Status::AudNotString => "Jwt payload [aud] field is not a string or string list",
            Status::SignatureBadBase64 => "Jwt signature is an invalid Base64url encoded",
            Status::Ed25519WrongLength => "Jwt ED25519 signature is wrong length",
            Status::UnknownIssuer => "Jwt issuer is not configured",
            Status::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Status::VerificationFails => "Jwt verification fails",
            Status::NoValidKeys => "Jwks doesn't have any valid public key",
            Status::ClaimNotSendable => "Jwt payload has a claim that no header can carry",
            Status::NoMatchingKey => "Jwks doesn't have key to match kid or alg from Jwt",
        }
    }

    /// The response's status: whoever is known but not meant is forbidden, all others are to show who they are.
    pub fn code(self) -> u16 {
        if self == Status::AudienceNotAllowed { 403 } else { 401 }
    }

    /// Why, as response code details say it.
    pub fn details(self) -> String {
        let words: String = self.as_str().chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }).collect();
        format!("jwt_authn_access_denied{{{words}}}")
    }
}
