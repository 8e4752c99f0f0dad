//! Tables of segments: what goes in comes out, and every flipped byte shows.

use super::*;
use crate::block::LoadedBlock;
use crate::index::{Held, Pages, Preloaded, View};
use crate::messages::Keep;

const ID: SegmentId = SegmentId { group: GroupId(7), number: 3 };

fn encode(id: SegmentId, messages: &[Message], packed: bool) -> (Bytes, Written) {
    super::encode(SegmentWriter::new(id, packed, Vault::default()), messages)
}

fn message(seq: u64, subject: &str, header: &[u8], payload: &[u8]) -> Message {
    let record = Record::join(subject.as_bytes(), header, payload).unwrap();
    Message { seq: Seq(seq), ts: Time(1_000_000_000 + seq as i64 * 1000), record }
}

/// Everything that a segment says: its blocks, its messages, and what its index says of each.
fn read_all(id: SegmentId, file: &Bytes) -> Result<(Vec<Block>, Vec<Message>, Place), Damage> {
    read_all_with(&Vault::default(), id, file)
}

fn read_all_with(
    vault: &Vault,
    id: SegmentId,
    file: &Bytes,
) -> Result<(Vec<Block>, Vec<Message>, Place), Damage> {
    read_header(id, file)?;
    let trailer = read_trailer(id, file.len() as u64, file)?;
    let table_end = (trailer.table_offset() + trailer.table_len()) as usize;
    let blocks = trailer.read_table(&file[trailer.table_offset() as usize..table_end])?;
    let mut messages = Vec::new();
    for block in &blocks {
        let start = block.offset as usize;
        let block = LoadedBlock::open(id, block, &file.slice(start..start + block.len as usize), vault)?;
        messages.extend(block.messages()?);
    }
    let place = trailer.place();
    let pages = Pages::new(Box::new(Preloaded { offset: 0, bytes: file.clone() }), 20_000, vault.clone());
    let held = Held::default();
    let view = View { pages: &pages, id, place: &place, held: &held };
    let mut at = 0;
    view.check(|slot, subject| {
        let message = &messages[at];
        at += 1;
        assert_eq!((slot.seq, slot.ts, subject), (message.seq.0, message.ts.0, message.record.subject()));
        assert_eq!(u64::from(slot.size), Keep::File.size_of(&message.record));
        let block = &blocks[slot.block as usize];
        assert!((block.first..=block.last).contains(&message.seq));
    })?;
    assert_eq!(at, messages.len());
    ask(&view, &messages)?;
    Ok((blocks, messages, place))
}

/// Asks an index for what is in it, and for what is not.
fn ask(view: &View<'_>, messages: &[Message]) -> Result<(), Damage> {
    let mut by_subject: std::collections::BTreeMap<&[u8], Vec<u64>> = std::collections::BTreeMap::new();
    for message in messages {
        by_subject.entry(message.record.subject()).or_default().push(message.seq.0);
        let (_, slot) = view.slot(message.seq.0, |_| true)?.expect("there is a group");
        let slot = slot.expect("it is there");
        assert_eq!(view.name(slot.rank)?, message.record.subject());
        let before = view.slot(message.seq.0.saturating_sub(1), |_| true)?.and_then(|(_, slot)| slot);
        assert!(before.is_none_or(|slot| slot.seq < message.seq.0));
    }
    for (name, seqs) in &by_subject {
        let (rank, postings) = view.find(name, View::hash(name))?.expect("it is there");
        assert_eq!(&view.name(rank)?[..], *name);
        assert_eq!(postings.count(), seqs.len() as u64);
        for from in [0, seqs[0], seqs[seqs.len() / 2] + 1, seqs[seqs.len() - 1]] {
            let mut found = Vec::new();
            postings.each_from(view, from, |seq| {
                found.push(seq);
                true
            })?;
            assert_eq!(found, seqs[seqs.partition_point(|&seq| seq < from)..], "from {from}");
            let last = seqs.iter().rev().find(|&&seq| seq <= from && seq % 2 == 1).copied();
            assert_eq!(postings.last_where(view, from, |seq| seq % 2 == 1)?, last);
        }
        let (start, end) = (&name[..name.len() - 1], name[name.len() - 1]);
        for other in [&[name, &b".x"[..]].concat(), start, &[start, &[end + 1]].concat(), b"", b"\xff", b"k"]
        {
            let found = view.find(other, View::hash(name))?;
            assert_eq!(found.is_some(), by_subject.contains_key(other), "{other:?}");
        }
    }
    let mut names = Vec::new();
    let _ = view.each_match(b"k.*", &mut |_, name, _| {
        names.push(name.to_vec());
        std::ops::ControlFlow::Continue(())
    })?;
    let expected = by_subject.keys().filter(|name| hw_subject::matches(b"k.*", name));
    assert!(names.iter().map(Vec::as_slice).eq(expected.copied()));
    Ok(())
}

#[test]
fn what_goes_in_comes_out() {
    let big = vec![9; BLOCK_BYTES_MAX + 1];
    let cases: Vec<Vec<Message>> = vec![
        vec![],
        vec![message(1, "a", b"", b"")],
        vec![
            message(5, "a.b", b"NATS/1.0\r\n\r\n", b"x"),
            message(9, "a.c", b"", b"yy"),
            message(10, "a.b", b"", b""),
        ],
        vec![message(1, "s", b"", b"1"), message(2, "s", b"", &big), message(u64::MAX, "s", b"", b"3")],
        (1..=5000).map(|seq| message(seq * 3, &format!("k.{}", seq % 70), b"", &[seq as u8; 300])).collect(),
    ];
    for (messages, packed) in
        cases.into_iter().flat_map(|messages| [(messages.clone(), false), (messages, true)])
    {
        let (file, written) = encode(ID, &messages, packed);
        let (blocks, found, place) = read_all(ID, &file).unwrap();
        assert_eq!(found, messages);
        assert_eq!(written, Written { segment: ID.number, place });
        assert_eq!(place.records, messages.len() as u64);
        assert!(blocks.iter().all(|block| block.len as usize <= BLOCK_BYTES_MAX || block.count == 1));
        if packed {
            let plain = encode(ID, &messages, false).0.len();
            assert!(if messages.len() > 4 { file.len() < plain / 4 } else { file.len() <= plain });
            continue;
        }
        let range = file.as_ptr_range();
        assert!(
            found.iter().all(|message| range.contains(&message.record.joined().as_ptr())),
            "records are slices"
        );
    }
}

#[test]
fn every_flip_and_every_cut_shows() {
    let messages = vec![
        message(5, "a.b", b"h", b"xyz"),
        message(9, "a.c", b"", &[b'y'; 99]),
        message(10, "a.b", b"", b""),
    ];
    let (plain, _) = encode(ID, &messages, false);
    let (packed, _) = encode(ID, &messages, true);
    assert!(packed.len() < plain.len());
    let nobody = Vault::default();
    for file in [plain, packed] {
        every_flip_and_every_cut_of(&nobody, &file);
    }
    for (cipher, packed) in [(Cipher::Aes, false), (Cipher::Chacha, true)] {
        let vault = crate::vault::tests::vault(cipher, 1);
        let (file, _) = super::encode(SegmentWriter::new(ID, packed, vault.clone()), &messages);
        assert_eq!(read_all_with(&vault, ID, &file).unwrap().1, messages);
        assert_eq!(read_all(ID, &file).unwrap_err().flaw, Flaw::NoKey);
        assert!(!file.windows(4).any(|part| part == b"yyyy" || part == b"\x03a.b"));
        every_flip_and_every_cut_of(&vault, &file);
    }
}

#[test]
fn sealed_segments_are_written_in_pieces() {
    let vault = crate::vault::tests::vault(Cipher::Aes, 1);
    let messages: Vec<Message> =
        (1..=5000).map(|seq| message(seq * 3, &format!("k.{}", seq % 70), b"", &[seq as u8; 300])).collect();
    for packed in [false, true] {
        let (file, _) = super::encode(SegmentWriter::new(ID, packed, vault.clone()), &messages);
        assert_eq!(file[8..10], [if packed { 6 } else { 5 }, 1]);
        assert_eq!(read_all_with(&vault, ID, &file).unwrap().1, messages);
        // Whole is whole: a segment that is not sealed was not written by the store.
        let (plain, _) = encode(ID, &messages, packed);
        assert_eq!(read_all_with(&vault, ID, &plain).unwrap_err().flaw, Flaw::Unsealed { part: "block" });
    }
}

fn every_flip_and_every_cut_of(vault: &Vault, file: &Bytes) {
    let read_all = |id, file: &Bytes| read_all_with(vault, id, file);
    for at in 0..file.len() {
        // Flips of the index take long to look for everything: one bit of each byte is enough.
        let mut flipped = file.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let damage = read_all(ID, &Bytes::from(flipped)).expect_err(&format!("byte {at}"));
        assert_eq!(damage.file, ID.file());
    }
    for len in 0..file.len() {
        assert!(read_all(ID, &file.slice(..len)).is_err(), "cut to {len}");
    }
}

#[test]
fn bytes_of_another_segment_do_not_pass() {
    let (file, _) = encode(ID, &[message(5, "a.b", b"h", b"xyz")], false);
    let (blocks, ..) = read_all(ID, &file).unwrap();
    for other in [SegmentId { number: 4, ..ID }, SegmentId { group: GroupId(8), ..ID }] {
        assert!(matches!(read_header(other, &file).unwrap_err().flaw, Flaw::Misplaced { .. }));
        assert!(matches!(
            read_trailer(other, file.len() as u64, &file).unwrap_err().flaw,
            Flaw::Misplaced { .. }
        ));
        let start = blocks[0].offset as usize;
        let opened = LoadedBlock::open(other, &blocks[0], &file.slice(start..), &Vault::default());
        assert!(opened.and_then(LoadedBlock::checked).is_err());
    }
}

#[test]
fn numbers_on_disk_stay() {
    let (file, _) = encode(ID, &[message(5, "a.b", b"h", b"xyz")], false);
    assert_eq!(file[..28], *b"HWSEG\r\n\x1a\x05\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
    let record = &file[HEADER_BYTES..HEADER_BYTES + RECORD_HEAD_BYTES + 7];
    assert_eq!(record[..4], 7u32.to_le_bytes());
    assert_eq!(record[8..16], 5u64.to_le_bytes());
    assert_eq!(record[24..39], *b"\x01\0\0\0\x03\0\0\0a.bhxyz");
    assert_eq!(file[file.len() - 8..], *b"HWSEGend");
    assert_eq!((HEADER_BYTES, TRAILER_BYTES, RECORD_HEAD_BYTES, TABLE_ROW_BYTES), (32, 128, 32, 32));
}

#[test]
fn an_index_has_pinned_bytes() {
    let subjects = ["k.a", "k.ab", "k.b", "k.c", "k.d", "k.e", "k.f", "k.g", "k.h", "k.h"];
    let messages: Vec<Message> =
        subjects.iter().zip(5..).map(|(subject, seq)| message(seq * 2, subject, b"", b"x")).collect();
    let (file, written) = encode(ID, &messages, false);
    let place = written.place;
    let content = &file[place.offset as usize + 4..];
    let first = 1_000_010_000i64;
    let mut group = Vec::new();
    crate::bytes_io::put_signed_varint(&mut group, first);
    // Block 0, subject 0, 34 bytes; nothing else begins a block.
    group.extend_from_slice(b"\0\0\x22\0\0\0\0\0\0\0\0");
    group.extend_from_slice(b"\x01\x02\x01\x01");
    group.extend_from_slice(b"\0\x02\x04\x06\x08\x0a\x0c\x0e\x10\x12");
    (0..10u16).for_each(|at| group.extend_from_slice(&(at * 2000).to_le_bytes()));
    group.extend_from_slice(b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x08");
    group.extend_from_slice(b"\0\x01\0\0\0\0\0\0\0\0");
    assert_eq!(content[..place.dictionary as usize], group);
    // The second run begins at 41: its subject shares two bytes with the block's first.
    let names = b"\x29\0\x03\0\x01\0\x03\x01b\x01\x02\x02\x01b\x01\x04\x02\x01c\x01\x06\x02\x01d\x01\x08\
        \x02\x01e\x01\x0a\x02\x01f\x01\x0c\x02\x01g\x01\x0e\x02\x01h\x02\x10\x02";
    assert_eq!(content[place.dictionary as usize..place.postings as usize], names[..]);
}
