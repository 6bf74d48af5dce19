//! Byte-level requests and what the real Istio and Envoy answered: the codec gives the same answers, but for what is unsafe.

use std::path::PathBuf;

use maille_http::RequestHead;
use maille_http::h1::{BodyDecoder, Limits, parse_request};
use maille_http::path::{Outcome, PathRules};

/// Where we are stricter: two readers could take these for different messages.
const STRICTER: [&str; 3] = ["raw-cr-in-value", "raw-body-te-folded", "raw-chunk-bad-end"];

fn recorded() -> Option<String> {
    let root = match std::env::var_os("CONFORMANCE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance"),
    };
    let found = std::fs::read_to_string(root.join("recorded/raw/cases.jsonl"));
    match found {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no conformance data at {}", root.display());
            None
        }
        Err(e) => panic!("{}: {e}", root.display()),
    }
}

/// The statuses that these bytes would be answered with, as far as the codec and the path rules decide it.
fn answers(mut bytes: Vec<u8>) -> Vec<u64> {
    let rules = PathRules { normalize: true, ..PathRules::default() };
    let mut head = RequestHead::new();
    let mut out = Vec::new();
    loop {
        let meta = match parse_request(&bytes, &Limits::default(), &mut head) {
            Ok(Some(meta)) => match meta.objection {
                None => meta,
                Some(error) => {
                    out.push(error.status().into());
                    return out;
                }
            },
            Ok(None) => return out,
            Err(error) => {
                out.push(error.status().into());
                return out;
            }
        };
        let path = head.path_and_query();
        if path != b"*" && rules.apply(path) == Outcome::Reject {
            out.push(400);
            return out;
        }
        bytes.drain(..meta.len);
        let mut body = BodyDecoder::new(meta.body);
        match body.decode(&mut bytes) {
            Ok(decoded) if decoded.done => drop(bytes.drain(..decoded.consumed)),
            Ok(_) => return out,
            Err(error) => {
                out.push(error.status().into());
                return out;
            }
        }
        out.push(200);
        if !meta.keep_alive {
            return out;
        }
    }
}

#[test]
fn conformance_recorded_raw_requests() {
    let Some(text) = recorded() else { return };
    let mut compared = 0;
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        for request in case["requests"].as_array().unwrap() {
            let raw = request["send"]["raw"].as_str().unwrap();
            let bytes = raw.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            let want: Vec<u64> =
                request["got"]["answers"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
            let have = answers(bytes);
            if STRICTER.contains(&name) {
                assert_eq!(have, [400], "{name}: {raw:?}");
            } else {
                assert_eq!(have, want, "{name}: {raw:?}");
            }
            compared += 1;
        }
    }
    assert!(compared > 0, "there are no cases in the file");
}
