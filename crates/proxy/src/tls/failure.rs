//! Why there is no TLS connection, in the words that Envoy has for it: people search their logs for them.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// `TLS_error:|CODE:SSL_routines:OPENSSL_internal:REASON:TLS_error_end`, without blanks: it is one field of a log.
pub(crate) fn reason(error: &io::Error) -> String {
    words(error).replace(' ', "_")
}

fn words(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(tls) => of_tls(tls),
        // The other side has closed the connection without a word, and Envoy has none for it either.
        None if error.kind() == io::ErrorKind::UnexpectedEof => String::new(),
        None => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let code = error.raw_os_error().unwrap_or(0);
            line((2 << 24) + code as u32, "system library", text)
        }
    }
}

fn of_tls(error: &Error) -> String {
    let (number, name) = match error {
        Error::InvalidCertificate(bad) => {
            let why = certificate(bad);
            return line(
                (16 << 24) + 125,
                "SSL routines",
                &format!("CERTIFICATE_VERIFY_FAILED:verify cert failed: {why}"),
            );
        }
        Error::AlertReceived(alert) => match alert_name(*alert) {
            Some((number, name)) => (1000 + number, name),
            None => (1000 + u32::from(u8::from(*alert)), "UNKNOWN_ALERT_TYPE"),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            (247, "WRONG_VERSION_NUMBER")
        }
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => (245, "UNEXPECTED_MESSAGE"),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => (240, "UNSUPPORTED_PROTOCOL"),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => (184, "NO_SHARED_CIPHER"),
        Error::PeerIncompatible(_) => (1040, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        Error::NoCertificatesPresented => (192, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        Error::NoApplicationProtocol => (1120, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"),
        Error::DecryptError => (130, "BAD_DECRYPT"),
        Error::PeerSentOversizedRecord => (146, "ENCRYPTED_LENGTH_TOO_LONG"),
        _ => (226, "SSL_HANDSHAKE_FAILURE"),
    };
    line((16 << 24) + number, "SSL routines", name)
}

fn line(code: u32, library: &str, reason: &str) -> String {
    format!("TLS_error:|{code}:{library}:OPENSSL_internal:{reason}:TLS_error_end")
}

fn certificate(error: &CertificateError) -> String {
    let why = match error {
        // It says it in full.
        CertificateError::Other(other) => return other.to_string(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "certificate is not yet valid",
        CertificateError::Revoked => "certificate revoked",
        CertificateError::UnknownRevocationStatus => "unable to get certificate CRL",
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        CertificateError::BadSignature => "certificate signature failure",
        _ => "certificate rejected",
    };
    format!("X509_verify_cert: certificate verification error at depth 0: {why}")
}

fn alert_name(alert: AlertDescription) -> Option<(u32, &'static str)> {
    Some(match alert {
        AlertDescription::UnexpectedMessage => (10, "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
        AlertDescription::BadRecordMac => (20, "SSLV3_ALERT_BAD_RECORD_MAC"),
        AlertDescription::HandshakeFailure => (40, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        AlertDescription::NoCertificate => (41, "SSLV3_ALERT_NO_CERTIFICATE"),
        AlertDescription::BadCertificate => (42, "SSLV3_ALERT_BAD_CERTIFICATE"),
        AlertDescription::UnsupportedCertificate => (43, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
        AlertDescription::CertificateRevoked => (44, "SSLV3_ALERT_CERTIFICATE_REVOKED"),
        AlertDescription::CertificateExpired => (45, "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        AlertDescription::CertificateUnknown => (46, "SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
        AlertDescription::IllegalParameter => (47, "SSLV3_ALERT_ILLEGAL_PARAMETER"),
        AlertDescription::UnknownCA => (48, "TLSV1_ALERT_UNKNOWN_CA"),
        AlertDescription::AccessDenied => (49, "TLSV1_ALERT_ACCESS_DENIED"),
        AlertDescription::DecodeError => (50, "TLSV1_ALERT_DECODE_ERROR"),
        AlertDescription::DecryptError => (51, "TLSV1_ALERT_DECRYPT_ERROR"),
        AlertDescription::ProtocolVersion => (70, "TLSV1_ALERT_PROTOCOL_VERSION"),
        AlertDescription::InsufficientSecurity => (71, "TLSV1_ALERT_INSUFFICIENT_SECURITY"),
        AlertDescription::InternalError => (80, "TLSV1_ALERT_INTERNAL_ERROR"),
        AlertDescription::UnrecognisedName => (112, "TLSV1_ALERT_UNRECOGNIZED_NAME"),
        AlertDescription::CertificateRequired => (116, "TLSV1_ALERT_CERTIFICATE_REQUIRED"),
        AlertDescription::NoApplicationProtocol => (120, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a real Envoy 1.40 words them.
    #[test]
    fn failures_in_envoys_words() {
        let tls = |error: Error| reason(&io::Error::new(io::ErrorKind::InvalidData, error));
        let alert = |alert| tls(Error::AlertReceived(alert));
        let bad = |error: CertificateError| tls(Error::InvalidCertificate(error));
        for (got, expected) in [
            (
                tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                "TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end",
            ),
            (
                alert(AlertDescription::HandshakeFailure),
                "TLS_error:|268436496:SSL_routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end",
            ),
            (
                alert(AlertDescription::ProtocolVersion),
                "TLS_error:|268436526:SSL_routines:OPENSSL_internal:TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end",
            ),
            (
                bad(CertificateError::Expired),
                "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_\
                 X509_verify_cert:_certificate_verification_error_at_depth_0:_certificate_has_expired:TLS_error_end",
            ),
            (
                reason(&io::Error::from_raw_os_error(104)),
                "TLS_error:|33554536:system_library:OPENSSL_internal:Connection_reset_by_peer:TLS_error_end",
            ),
            (reason(&io::ErrorKind::UnexpectedEof.into()), ""),
        ] {
            assert_eq!(got, expected);
        }
    }
}
