//! Requests as agents make them, and as nobody should.

use std::process::{Command, Stdio};

use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, SanType};

use super::*;

fn request(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// A request made by openssl, which makes kinds that our library does not.
fn openssl(arguments: &str) -> String {
    let script = format!("openssl req -new -nodes -keyout /dev/null -subj / {arguments}");
    let output = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn our_own_request_names_nobody_and_is_read() {
    let (key, pem) = generate().unwrap();
    let request = Request::read(&pem).unwrap();
    assert!(!request.wants_common_name);
    let key = KeyPair::try_from(&key).unwrap();
    assert_eq!(request.key.subject_public_key_info(), key.subject_public_key_info());
}

#[test]
fn requests_of_every_kind_of_key_that_is_used_are_read() {
    for pem in [
        request(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), |_| {}),
        request(&KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), |_| {}),
        openssl("-newkey rsa:2048 -sha512"),
        openssl("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha256"),
        // What Istio's agents ask for, and what nobody asks for: names are not looked at.
        request(&KeyPair::generate().unwrap(), |params| {
            let uri = "spiffe://cluster.local/ns/default/sa/default".try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
        }),
        openssl("-newkey rsa:2048 -addext subjectAltName=DNS:bank.example -addext nsComment=hello"),
    ] {
        assert!(Request::read(&pem).is_ok(), "{:?}: {pem}", Request::read(&pem));
    }
    let named = request(&KeyPair::generate().unwrap(), |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "me");
    });
    assert!(Request::read(&named).unwrap().wants_common_name);
}

#[test]
fn hostile_requests_are_refused_for_their_reason() {
    let key = KeyPair::generate().unwrap();
    let good = request(&key, |_| {});
    let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let stolen = {
        // Another's key under our signature: found and put in the place of ours.
        let other = KeyPair::generate().unwrap();
        let (ours, theirs) = (key.public_key_raw(), other.public_key_raw());
        let at = der.windows(ours.len()).position(|window| window == ours).unwrap();
        let mut bytes = der.to_vec();
        bytes[at..at + ours.len()].copy_from_slice(theirs);
        bytes
    };
    let mut unsigned = der.to_vec();
    *unsigned.last_mut().unwrap() ^= 1;
    let trailing = [&der[..], b"more"].concat();
    let table = [
        ("empty", String::new(), CsrError::Pem),
        ("not PEM", "hello".into(), CsrError::Pem),
        ("a certificate", pem("CERTIFICATE", &der), CsrError::Pem),
        ("no end", good.replace("END", "FIN"), CsrError::Pem),
        ("not DER", pem("CERTIFICATE REQUEST", b"hello"), CsrError::Der),
        ("empty DER", pem("CERTIFICATE REQUEST", b""), CsrError::Der),
        ("more after it", pem("CERTIFICATE REQUEST", &trailing), CsrError::Der),
        ("half of it", pem("CERTIFICATE REQUEST", &der[..der.len() / 2]), CsrError::Der),
        ("another's key", pem("CERTIFICATE REQUEST", &stolen), CsrError::Signature),
        ("one bit of the signature", pem("CERTIFICATE REQUEST", &unsigned), CsrError::Signature),
        ("huge", format!("{good}{}", " ".repeat(MAX_CSR)), CsrError::TooLong),
        ("Ed25519", request(&KeyPair::generate_for(&PKCS_ED25519).unwrap(), |_| {}), CsrError::Algorithm),
        ("SHA-1", openssl("-newkey rsa:2048 -sha1"), CsrError::Algorithm),
        ("a short key", openssl("-newkey rsa:1024 -sha256"), CsrError::Algorithm),
        ("P-521", openssl("-newkey ec -pkeyopt ec_paramgen_curve:P-521 -sha256"), CsrError::Signature),
        ("secp256k1", openssl("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1 -sha256"), CsrError::Signature),
    ];
    for (what, pem, reason) in table {
        assert_eq!(Request::read(&pem), Err(reason), "{what}");
    }
}

#[test]
fn no_cut_and_no_flip_of_a_request_passes_or_panics() {
    let good = request(&KeyPair::generate().unwrap(), |_| {});
    let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    let read = |der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        Request::read(&format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"))
    };
    assert!(read(&der).is_ok());
    let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
    let signed = parsed.certification_request_info.raw;
    let start = signed.as_ptr() as usize - der.as_ptr() as usize;
    for at in 0..der.len() {
        assert!(read(&der[..at]).is_err(), "cut at {at}");
        let mut flipped = der.to_vec();
        flipped[at] ^= 0x10;
        // Around what is signed there is more than one way to write the same.
        let refused = read(&flipped).is_err();
        assert!(refused || !(start..start + signed.len()).contains(&at), "flipped at {at}");
    }
}
