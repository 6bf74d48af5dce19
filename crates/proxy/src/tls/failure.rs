//! Why there is no TLS connection, in the words that Envoy has for it: people search their logs for them.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// `TLS_error:|CODE:SSL routines:OPENSSL_internal:REASON:TLS_error_end`.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(tls) => of_tls(tls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => closed(),
        None => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let code = error.raw_os_error().unwrap_or(0);
            line((2 << 24) + code as u32, "system library", text)
        }
    }
}

/// The other side has closed the connection without a word.
fn closed() -> String {
    "TLS_error:|0:lib(0):func(0):reason(0):TLS_error_end".to_owned()
}

fn of_tls(error: &Error) -> String {
    let (number, name) = match error {
        Error::InvalidCertificate(bad) => {
            let why = certificate(bad);
            return line((16 << 24) + 125, "SSL routines", &format!("CERTIFICATE_VERIFY_FAILED:{why}"));
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

fn certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::ApplicationVerificationFailure => "verify SAN list",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate is not yet valid"
        }
        CertificateError::Revoked => {
            "verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate revoked"
        }
        CertificateError::UnknownRevocationStatus => {
            "verify cert failed: X509_verify_cert: certificate verification error at depth 0: unable to get certificate CRL"
        }
        CertificateError::UnknownIssuer => {
            "verify cert failed: X509_verify_cert: certificate verification error at depth 0: unable to get local issuer certificate"
        }
        _ => "verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate rejected",
    }
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
