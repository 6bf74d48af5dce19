//! What gets past the checks, and what must not.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn params_of_authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(params_of_authority(name), KeyPair::generate().unwrap()).unwrap()
}

fn leaf(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    change(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
}

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

fn roots(of: &[&Authority]) -> Option<Arc<Roots>> {
    Some(Arc::new(Roots::new(of.iter().map(|ca| ca.der().clone()).collect()).unwrap()))
}

const NOW: u64 = 1_900_000_000;

fn check(checks: Checks, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
    check_at(checks, chain, NOW)
}

fn check_at(checks: Checks, chain: &[CertificateDer<'_>], at: u64) -> Result<(), Error> {
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
    PeerVerifier::new(checks, true).check(chain, None, false, time)
}

fn named(wanted: &'static str) -> Option<Names> {
    Some(Arc::new(move |peer: &PeerCertificate| peer.uri_sans.iter().any(|uri| &**uri == wanted)))
}

#[test]
fn signatures_lead_to_a_root() {
    let (ca, stranger) = (authority("ca"), authority("stranger"));
    let middle = CertifiedIssuer::signed_by(params_of_authority("middle"), KeyPair::generate().unwrap(), &ca).unwrap();
    let (direct, deep) = (leaf(&ca, |_| {}), leaf(&middle, |_| {}));
    let of = |roots| Checks { roots, ..Checks::default() };
    assert!(check(of(roots(&[&ca])), std::slice::from_ref(&direct)).is_ok());
    assert!(check(of(roots(&[&stranger, &ca])), std::slice::from_ref(&direct)).is_ok());
    assert!(check(of(roots(&[&stranger])), std::slice::from_ref(&direct)).is_err());
    assert!(check(of(roots(&[&ca])), std::slice::from_ref(&deep)).is_err(), "the one in the middle is missing");
    assert!(check(of(roots(&[&ca])), &[deep.clone(), middle.der().clone()]).is_ok());
    assert!(check(of(roots(&[&middle])), std::slice::from_ref(&deep)).is_ok(), "the middle may be the root");
    let shallow = Checks { max_depth: Some(0), ..of(roots(&[&ca])) };
    assert!(check(shallow, &[deep, middle.der().clone()]).is_err());
    assert!(check(of(roots(&[&ca])), &[]).is_err());
    let any = Checks { accept_untrusted: true, ..of(roots(&[&stranger])) };
    assert!(check(any, std::slice::from_ref(&direct)).is_ok());
    // A certificate that is trusted itself needs nobody's word, but has its time.
    let own = Roots::new(vec![direct.clone()]).unwrap();
    let pinned = || of(Some(Arc::new(Roots::new(own.certificates.clone()).unwrap())));
    assert!(check(pinned(), std::slice::from_ref(&direct)).is_ok());
    assert!(check_at(pinned(), &[direct], 4_000_000_000).is_err());
}

#[test]
fn row_27_time_and_revocation_are_judged_whenever_asked() {
    let ca = authority("ca");
    let serial = |number: u64| leaf(&ca, |params| params.serial_number = Some(SerialNumber::from(number)));
    let (good, bad) = (serial(1), serial(2));
    let list = |next_update| {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(2_u64),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        revocation_lists(params.signed_by(&ca).unwrap().pem().unwrap().as_bytes()).unwrap()
    };
    let with = |revoked| Checks { roots: roots(&[&ca]), revoked, ..Checks::default() };
    let far = || list(date_time_ymd(2050, 1, 1));
    assert!(check(with(far()), std::slice::from_ref(&good)).is_ok());
    assert!(check(with(far()), std::slice::from_ref(&bad)).is_err());
    assert!(check(with(Vec::new()), std::slice::from_ref(&bad)).is_ok());
    let stale = list(date_time_ymd(2022, 1, 1));
    assert!(check(with(stale), std::slice::from_ref(&good)).is_err(), "an old list says nothing about now");
    // A certificate that was good when the session began is judged as of the time of asking.
    assert!(check_at(with(Vec::new()), std::slice::from_ref(&good), 4_000_000_000).is_err());
    assert!(check_at(with(Vec::new()), std::slice::from_ref(&good), 1_000_000_000).is_err());
    let patient = Checks { allow_expired: true, ..with(Vec::new()) };
    assert!(check_at(patient, std::slice::from_ref(&good), 4_000_000_000).is_ok());
    let patient = Checks { allow_expired: true, ..with(far()) };
    assert!(check_at(patient, &[bad], 4_000_000_000).is_err(), "out of date or not, it is revoked");
}

#[test]
fn row_27_names_are_what_they_seem() {
    let ca = authority("ca");
    let id = "spiffe://td/ns/a/sa/b";
    let with = || Checks { roots: roots(&[&ca]), names: named(id), ..Checks::default() };
    let holding =
        |names: &[&str]| leaf(&ca, |params| params.subject_alt_names = names.iter().map(|n| uri(n)).collect());
    for (names, welcome) in [
        (&[id][..], true),
        (&["spiffe://td/ns/a/sa/c"], false),
        (&[], false),
        (&[id, "spiffe://td/ns/a/sa/c"], false),
        (&["https://a.example", id], false),
        (&["SPIFFE://td/ns/a/sa/b"], false),
    ] {
        assert_eq!(check(with(), &[holding(names)]).is_ok(), welcome, "{names:?}");
    }
    // Whatever is wanted: an id that could be spelt in another way is none.
    for odd in [
        "spiffe://TD/ns/a/sa/b",
        "spiffe://td/ns/a/../sa/b",
        "spiffe://td//a",
        "spiffe://td/a%2fb",
        "spiffe://td/a?b",
        "Spiffe://td/a",
    ] {
        let any = Checks { names: Some(Arc::new(|_: &PeerCertificate| true)), ..with() };
        assert!(check(any, &[holding(&[odd])]).is_err(), "{odd}");
    }
}

/// A name with a zero byte ends there for some readers (Envoy: CVE-2025-66220).
#[test]
fn row_27_a_zero_byte_in_a_name_spoils_the_certificate() {
    let ca = authority("ca");
    for name in [&b"a.example\0.evil.example"[..], b"a.example\n"] {
        let name_der = [&[0x82, name.len() as u8][..], name].concat();
        let id = [&[0x86, 20][..], b"spiffe://a/ns/b/sa/c"].concat();
        let names = [&[0x30, (name_der.len() + id.len()) as u8][..], &name_der, &id].concat();
        let crafted = leaf(&ca, |params| {
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names)];
        });
        let any =
            Checks { roots: roots(&[&ca]), names: Some(Arc::new(|_: &PeerCertificate| true)), ..Checks::default() };
        assert!(check(any, std::slice::from_ref(&crafted)).is_err(), "{name:?}");
        assert_eq!(crate::spiffe::of_certificate(&crafted), Err(crate::spiffe::NotAnId::Certificate), "{name:?}");
    }
}

#[test]
fn a_certificate_or_its_key_may_be_the_one_that_is_known() {
    let ca = authority("ca");
    let (known, other) = (leaf(&ca, |_| {}), leaf(&ca, |_| {}));
    let hash = |der: &[u8]| <[u8; 32]>::try_from(digest(&SHA256, der).as_ref()).unwrap();
    let key = hash(&EndEntityCert::try_from(&known).unwrap().subject_public_key_info());
    for (hashes, keys) in [(vec![hash(&known)], vec![]), (vec![], vec![key]), (vec![[0; 32]], vec![key])] {
        for roots in [None, roots(&[&ca])] {
            let of =
                || Checks { hashes: hashes.clone(), keys: keys.clone(), roots: roots.clone(), ..Checks::default() };
            assert!(check(of(), std::slice::from_ref(&known)).is_ok());
            assert!(check(of(), std::slice::from_ref(&other)).is_err());
        }
    }
}

#[test]
fn what_is_wrong_with_a_secret_is_said_without_its_content() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
    let other = KeyPair::generate().unwrap().serialize_pem();
    for (chain, key, reason) in [
        ("", key.serialize_pem(), "there is no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key.serialize_pem(), "certificate 1 cannot"),
        (&certificate, String::new(), "there is no private key"),
        (&certificate, other.clone(), "does not belong"),
    ] {
        let error = Certificate::read(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains("PRIVATE KEY-----"), "{error}");
    }
    assert!(Certificate::read(certificate.as_bytes(), key.serialize_pem().as_bytes()).is_ok());
    assert!(Roots::read(b"nothing").is_err());
    assert!(revocation_lists(b"nothing").is_err());
}
