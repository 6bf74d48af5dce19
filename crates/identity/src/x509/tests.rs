//! What certificates say.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, SerialNumber};

use super::*;

#[test]
fn all_that_is_asked_of_a_certificate() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "CH");
    params.distinguished_name.push(DnType::OrganizationName, "a, b+c");
    params.distinguished_name.push(DnType::CommonName, " x\"");
    params.serial_number = Some(SerialNumber::from_slice(&[0x80, 1, 0xab]));
    params.subject_alt_names = vec![
        SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()),
        SanType::DnsName("one.example".try_into().unwrap()),
        SanType::DnsName("two.example".try_into().unwrap()),
        SanType::IpAddress("10.1.2.3".parse().unwrap()),
        SanType::IpAddress("fe80::1".parse().unwrap()),
    ];
    let certificate = params.self_signed(&key).unwrap();
    let peer = PeerCertificate::parse(certificate.der()).unwrap();
    assert_eq!(peer.uri_sans, ["spiffe://td/ns/a/sa/b".into()]);
    assert_eq!(peer.dns_sans, ["one.example".into(), "two.example".into()]);
    assert_eq!(peer.ip_sans, ["10.1.2.3".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    assert_eq!(&*peer.subject, r#"CN=\ x\",O=a\, b\+c,C=CH"#);
    assert_eq!(peer.issuer, peer.subject);
    assert_eq!(&*peer.serial, "8001ab");
    assert_eq!(peer.sha256.len(), 64);
    assert!(peer.not_before < peer.not_after);
}

#[test]
fn what_is_no_certificate() {
    for bytes in [&b""[..], b"\x30", b"\x30\x82\xff\xff", b"hello"] {
        assert!(PeerCertificate::parse(bytes).is_err());
    }
}
