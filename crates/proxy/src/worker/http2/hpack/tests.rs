//! Blocks good and bad: RFC 7541's own examples, and each mistake that its text names.

use super::*;

const OK: Result<bool, Reason> = Ok(false);
const PSEUDO_THERE: Result<bool, Reason> = Ok(true);
const BAD: Result<bool, Reason> = Err(Reason::COMPRESSION_ERROR);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn block(hpack: &mut Hpack, bytes: &[u8]) -> Result<bool, Reason> {
    hpack.take(bytes)?;
    hpack.end()
}

/// The sizes of what the table holds.
fn sizes(hpack: &Hpack) -> Vec<usize> {
    hpack.table.iter().map(Entry::size).collect()
}

#[test]
fn every_pattern_of_bits_is_a_code_or_begins_one() {
    assert_eq!(ENDS[25], 1 << 32);
    assert_eq!(CODES.iter().map(|n| u32::from(*n)).sum::<u32>(), 257);
}

/// Appendix C: requests without and with Huffman's code fill the table alike.
#[test]
fn the_examples_of_the_standard() {
    for blocks in [
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ] {
        let mut hpack = Hpack::default();
        for (block_, expected) in blocks.into_iter().zip([vec![57], vec![53, 57], vec![54, 53, 57]]) {
            assert_eq!(block(&mut hpack, &hex(block_)), PSEUDO_THERE);
            assert_eq!(sizes(&hpack), expected);
        }
        assert_eq!(hpack.size, 164);
    }
    // C.5 and C.6: a table of 256 bytes, from which entries are driven out.
    for (first, second) in [
        (
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54\
             6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
        ),
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
        ),
    ] {
        let mut hpack = Hpack::default();
        block(&mut hpack, &hex("3fe101")).unwrap();
        assert_eq!(block(&mut hpack, &hex(first)), PSEUDO_THERE);
        assert_eq!(sizes(&hpack), [63, 65, 52, 42]);
        assert_eq!(block(&mut hpack, &hex(second)), PSEUDO_THERE);
        assert_eq!(sizes(&hpack), [42, 63, 65, 52]);
    }
}

/// However a block is cut, it reads the same.
#[test]
fn blocks_in_pieces() {
    let whole = hex("828684418cf1e3c2e5f23a6ba0ab90f4ff408825a849e95ba97d7f8925a849e95bb8e8b4bf0001610162");
    for cut in 0..=whole.len() {
        let mut hpack = Hpack::default();
        hpack.take(&whole[..cut]).unwrap();
        hpack.take(&whole[cut..]).unwrap();
        assert_eq!((hpack.end(), sizes(&hpack)), (PSEUDO_THERE, vec![54, 57]), "{cut}");
    }
    let mut hpack = Hpack::default();
    whole.iter().for_each(|byte| hpack.take(&[*byte]).unwrap());
    assert_eq!((hpack.end(), sizes(&hpack)), (PSEUDO_THERE, vec![54, 57]));
}

#[test]
fn each_mistake() {
    for (what, bytes, expected) in [
        ("nothing", "", OK),
        ("a field", "0001610162", OK),
        ("a pseudo-header by number", "84", PSEUDO_THERE),
        ("a pseudo-header's name by number", "040161", PSEUDO_THERE),
        ("a pseudo-header by name", "00023a610162", PSEUDO_THERE),
        ("a pseudo-header by name, in Huffman's code", "0082b83f0162", PSEUDO_THERE),
        ("the entry of number 0", "80", BAD),
        ("the last entry that always is", "bd", OK),
        ("an entry that is not there", "be", BAD),
        ("a name that is not there", "7f000162", BAD),
        ("an entry that has just come", "400161 0162 be", OK),
        ("a number of five bytes", "3f80808000", OK),
        ("a number of six bytes", "3f8080808000", BAD),
        ("a number without an end", "ff80", BAD),
        ("a text without an end", "00016103", BAD),
        ("a name alone", "000161", BAD),
        ("a smaller table", "3f01 82", PSEUDO_THERE),
        ("two changes of the table", "20 3fe11f 82", PSEUDO_THERE),
        ("a table that is too large", "3fe21f", BAD),
        ("a change of the table behind a field", "82 20", BAD),
        ("a full byte of padding", "00 81ff 0162", BAD),
        ("padding that is not all ones", "00 8118 0162", BAD),
        ("padding as it should be", "00 811f 0162", OK),
        ("no letters at all", "00 80 80", OK),
        ("the end of a string", "00 84ffffffff 0162", BAD),
        ("the end of a string behind a letter", "00 851fffffffff 0162", BAD),
    ] {
        assert_eq!(block(&mut Hpack::default(), &hex(bytes)), expected, "{what}");
    }
    let mut hpack = Hpack::default();
    assert_eq!(block(&mut hpack, &hex("400161 0162")), OK);
    assert_eq!(block(&mut hpack, &hex("be")), OK);
    assert_eq!(block(&mut hpack, &hex("20 be")), BAD, "what the table has lost");
}

/// An entry that is larger than the table empties it (RFC 7541 §4.4).
#[test]
fn an_entry_that_is_too_large() {
    let mut hpack = Hpack::default();
    block(&mut hpack, &hex("400161 0162")).unwrap();
    let large = [&hex("400161 7fa11f")[..], &[b'v'; 4128]].concat();
    assert_eq!(block(&mut hpack, &large), OK);
    assert_eq!((sizes(&hpack), hpack.size), (vec![], 0));
}
