//! Header names as people wrote them: the codec works in lower case, and this changes letters of a head that has been written.

use crate::headers::Headers;

/// Writes the names of a head's fields `Like-This`. The head is what [`crate::RequestHead::write`] and the framing left, first line included.
pub fn proper_case(head: &mut [u8]) {
    for_each_name(head, |name| {
        let mut start = true;
        for b in name {
            if start {
                b.make_ascii_uppercase();
            }
            // Envoy's rule: a letter or digit after anything else begins a word.
            start = !b.is_ascii_alphanumeric();
        }
    });
}

/// Writes the names of a head's fields as they were spelled where `as_read` was read; names that were not there stay in lower case.
pub fn original_case(head: &mut [u8], as_read: &Headers) {
    if !as_read.has_spellings() {
        return;
    }
    for_each_name(head, |name| {
        if let Some(spelling) = as_read.spelling(name) {
            name.copy_from_slice(spelling);
        }
    });
}

fn for_each_name(head: &mut [u8], mut change: impl FnMut(&mut [u8])) {
    // The first line has no name; each that follows has one, but the empty one at the end.
    for line in head.split_mut(|&b| b == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|&b| b == b':') else { return };
        if let Some(name) = line.get_mut(..colon) {
            change(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_and_nothing_else() {
        let head = b"GET /x:y HTTP/1.1\r\nhost: x\r\nx-some_thing-1a: a-b:c\r\netag: e\r\n\r\nbody: z\r\n";
        let mut proper = head.to_vec();
        proper_case(&mut proper);
        let want = b"GET /x:y HTTP/1.1\r\nHost: x\r\nX-Some_Thing-1a: a-b:c\r\nEtag: e\r\n\r\nbody: z\r\n";
        assert_eq!(proper, want);

        let mut as_read = Headers::new();
        for name in ["HOST", "ETag", "eTAG"] {
            as_read.remember_spelling(name.as_bytes());
        }
        let mut original = head.to_vec();
        original_case(&mut original, &as_read);
        let want = b"GET /x:y HTTP/1.1\r\nHOST: x\r\nx-some_thing-1a: a-b:c\r\nETag: e\r\n\r\nbody: z\r\n";
        assert_eq!(original, want);
    }
}
