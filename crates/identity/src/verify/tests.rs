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

#[test]
fn row_27_what_was_found_good_is_judged_as_of_now() {
    let ca = authority("ca");
    let brief = |params: &mut CertificateParams| params.not_after = date_time_ymd(2035, 1, 1);
    let middle = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params_of_authority("middle");
        params.not_before = date_time_ymd(2020, 1, 1);
        change(&mut params);
        CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &ca).unwrap()
    };
    let (lasting, short) = (middle(&|_| {}), middle(&brief));
    let at = |year: i32| {
        let seconds = date_time_ymd(year, 6, 1).unix_timestamp() as u64;
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    let id = "spiffe://td/ns/a/sa/b";
    let with_id = |params: &mut CertificateParams| params.subject_alt_names = vec![uri(id)];
    let chains = [
        ("a leaf", vec![leaf(&ca, |params| (brief(params), with_id(params)).0)]),
        ("one in the middle", vec![leaf(&short, with_id), short.der().clone()]),
        ("one that nobody needs", vec![leaf(&ca, with_id), lasting.der().clone(), short.der().clone()]),
    ];
    let checks = || Checks { roots: roots(&[&ca]), names: named(id), ..Checks::default() };
    for (what, chain) in &chains {
        let verifier = PeerVerifier::new(checks(), true);
        let name = |text: &'static str| ServerName::try_from(text).unwrap();
        assert!(verifier.known(chain, false, at(2030)).is_none(), "{what}");
        for _ in 0..2 {
            assert!(verifier.check(chain, None, false, at(2030)).is_ok(), "{what}");
            assert_eq!(&*verifier.known(chain, false, at(2030)).unwrap().uri_sans[0], id, "{what}");
        }
        // Before all and after one of its certificates, and for what it was not shown for, nothing is known of it.
        for (year, is_server) in [(2019, false), (2036, false), (2030, true)] {
            assert!(verifier.known(chain, is_server, at(year)).is_none(), "{what} {year} {is_server}");
        }
        let needed = *what != "one that nobody needs";
        assert_eq!(verifier.check(chain, None, false, at(2036)).is_err(), needed, "{what}");
        assert!(verifier.check(chain, None, false, at(2019)).is_err(), "{what}");
        // The name that is asked for is not what was found good.
        let asked = PeerVerifier::new(Checks { server_name: true, names: None, ..checks() }, true);
        assert!(asked.check(chain, Some(&name("a.example")), true, at(2030)).is_err());
        assert!(asked.known(chain, true, at(2030)).is_none());
    }
    let chain = &chains[0].1;
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2021, 1, 1),
        next_update: date_time_ymd(2031, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let revoked = revocation_lists(list.signed_by(&ca).unwrap().pem().unwrap().as_bytes()).unwrap();
    for checks in [Checks { revoked, ..checks() }, Checks { allow_expired: true, ..checks() }] {
        let verifier = PeerVerifier::new(checks, true);
        assert!(verifier.check(chain, None, false, at(2030)).is_ok());
        assert!(verifier.known(chain, false, at(2030)).is_none(), "a list ends by itself; who is patient has no time");
    }
}

#[test]
fn no_more_is_kept_than_is_needed() {
    let ca = authority("ca");
    let verifier = PeerVerifier::new(Checks { roots: roots(&[&ca]), ..Checks::default() }, true);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
    for _ in 0..300 {
        verifier.check(&[leaf(&ca, |_| {})], None, false, now).unwrap();
    }
    assert_eq!(format!("{:?}", verifier.known), "Known(44)");
}
