//! Header fields, changed in every way: the offset table does what a plain list of pairs does.

use maille_http::{HeaderId, Headers, Name};

use super::{Answer, ensure};

/// Names that changes are made to: known ones, unknown ones, and one that nearly is another.
const NAMES: [&str; 8] = ["cookie", "x-a", "x-ab", "content-length", "accept", "X-Forwarded-For", "x-b", "te"];

const IDS: [HeaderId; 5] =
    [HeaderId::Cookie, HeaderId::ContentLength, HeaderId::Accept, HeaderId::XForwardedFor, HeaderId::Te];

type Model = Vec<(String, Vec<u8>)>;

/// Takes the input for a list of changes: each a line whose first two bytes say what and to which name, and the rest is a value.
pub(super) fn check(input: &[u8]) -> Answer {
    let (mut headers, mut model) = (Headers::new(), Model::new());
    let mut changes = 0;
    for line in input.split(|&b| b == b'\n').take(64) {
        let [what, which, value @ ..] = line else { continue };
        let name = Name::new(NAMES[usize::from(*which) % NAMES.len()]);
        change(&mut headers, &mut model, what % 8, &name, value);
        changes += 1;
        agree(&headers, &model, &name).map_err(|what| format!("after {changes} changes: {what}"))?;
    }
    Ok(format!("{changes} {}", model.len()))
}

fn change(headers: &mut Headers, model: &mut Model, what: u8, name: &Name, value: &[u8]) {
    let text = name.as_str();
    // What is put together here cannot hold a line end; what was parsed has none.
    let clean: Vec<u8> = value.iter().map(|&b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { b }).collect();
    let place = model.iter().position(|(n, _)| n == text);
    match what {
        0 => {
            headers.append(name, value);
            model.push((text.into(), clean));
        }
        1 => {
            headers.push_parsed(text.to_uppercase().as_bytes(), &clean);
            model.push((text.into(), clean));
        }
        2 | 3 => {
            headers.set(name, value);
            match place {
                Some(place) => {
                    model[place].1 = clean;
                    let mut at = 0;
                    model.retain(|(n, _)| {
                        at += 1;
                        at - 1 <= place || n != text
                    });
                }
                None => model.push((text.into(), clean)),
            }
        }
        4 => {
            assert_eq!(headers.remove(name), place.is_some(), "whether {text} was there");
            model.retain(|(n, _)| n != text);
        }
        5 if name.id() != HeaderId::Other => {
            headers.set_id(name.id(), value);
            model.retain(|(n, _)| n != text);
            model.push((text.into(), clean));
        }
        6 if name.id() != HeaderId::Other => {
            headers.fold(name.id());
            if let Some(place) = place {
                let all = model.iter().filter(|(n, v)| n == text && !v.is_empty()).map(|(_, v)| v.clone());
                model[place].1 = all.collect::<Vec<_>>().join(&b","[..]);
                let mut at = 0;
                model.retain(|(n, _)| {
                    at += 1;
                    at - 1 <= place || n != text
                });
            }
        }
        _ => {
            headers.retain(|n, _, v| n != text.as_bytes() || v != value);
            model.retain(|(n, v)| n != text || v != value);
        }
    }
}

fn agree(headers: &Headers, model: &Model, name: &Name) -> Result<(), String> {
    let told = || format!("{headers:?}, but {model:?}");
    let pairs = headers.iter().eq(model.iter().map(|(n, v)| (n.as_bytes(), v.as_slice())));
    ensure(pairs && headers.len() == model.len() && headers.is_empty() == model.is_empty(), told)?;
    let mut out = Vec::new();
    headers.write(&mut out);
    let want: Vec<u8> = model.iter().flat_map(|(n, v)| [n.as_bytes(), b": ", v, b"\r\n"].concat()).collect();
    ensure(out == want && headers.wire_len() == out.len(), || {
        format!("written \"{}\"; {}", out.escape_ascii(), told())
    })?;
    let values: Vec<&[u8]> = model.iter().filter(|(n, _)| n == name.as_str()).map(|(_, v)| v.as_slice()).collect();
    let joined = (!values.is_empty()).then(|| values.join(&b","[..]));
    ensure(headers.joined(name).as_deref() == joined.as_deref(), || format!("joined {name}: {}", told()))?;
    ensure(headers.first(name) == values.first().copied(), || format!("first {name}: {}", told()))?;
    ensure(headers.values(name).eq(values), || format!("values of {name}: {}", told()))?;
    for id in IDS {
        let all: Vec<&[u8]> = model.iter().filter(|(n, _)| n == id.as_str()).map(|(_, v)| v.as_slice()).collect();
        let fine =
            headers.has(id) != all.is_empty() && headers.get(id) == all.first().copied() && headers.all(id).eq(all);
        ensure(fine, || format!("{id:?}: {}", told()))?;
    }
    Ok(())
}
