use base64::Engine as _;

use super::*;

/// By `openssl ocsp`, about the serial number f1a2b3c4d5, until 2026-11-29 13:39:08.
const RESPONSE: &str = "\
     MIIBCAoBAKCCAQEwgf4GCSsGAQUFBzABAQSB8DCB7TCBlKIWBBTQfRVqxrbCkAtQ6u9usFCuymCWmhgPMjAyNjExMjgxMzM5MDhaMGkwZzA/MAkGBSsOAwIa\
     BQAEFBEEjNIMs1kjB9AZ/QiJViti02SSBBTQfRVqxrbCkAtQ6u9usFCuymCWmgIGAPGis8TVgAAYDzIwMjYxMTI4MTMzOTA4WqARGA8yMDI2MTEyOTEzMzkw\
     OFowCgYIKoZIzj0EAwIDSAAwRQIgRC2cDyWZRdAC2VfRzzWOafEL0KiHFXizB59idVSwZi0CIQDJBKi/MLNBE5MTAoET6GUaHr0DfTatoVKJW+FwrWxTuA==";

fn response() -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(RESPONSE).unwrap()
}

#[test]
fn whose_it_is_and_until_when() {
    let read = read(&response()).unwrap();
    assert_eq!(read, Response { serial: vec![0, 0xf1, 0xa2, 0xb3, 0xc4, 0xd5], until: Some(1_795_959_548) });
}

#[test]
fn what_is_no_response_about_one_certificate() {
    let good = response();
    for end in 0..good.len() {
        assert!(read(&good[..end]).is_err(), "the first {end} bytes");
    }
    assert_eq!(read(&[&good[..], &[0]].concat()), Err("there is something behind it"));
    // responseStatus: tryLater.
    assert_eq!(read(&[0x30, 3, 0x0a, 1, 3]), Err("it says that there was no answer"));
    // Whatever a byte becomes, it is read or refused.
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut other = good.clone();
            other[at] ^= 1 << bit;
            let _ = read(&other);
        }
    }
}
