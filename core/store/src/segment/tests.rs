//! Tables of segments: what goes in comes out, and every flipped byte shows.

use super::*;
use crate::block::LoadedBlock;

const ID: SegmentId = SegmentId { group: GroupId(7), number: 3 };

fn message(seq: u64, subject: &str, header: &[u8], payload: &[u8]) -> Message {
    let record = Record::join(subject.as_bytes(), header, payload).unwrap();
    Message { seq: Seq(seq), ts: Time(1_000_000_000 + seq as i64 * 1000), record }
}

fn read_all(id: SegmentId, file: &Bytes) -> Result<(SegmentIndex, Vec<Message>), Damage> {
    read_header(id, file)?;
    let trailer = read_trailer(id, file.len() as u64, file)?;
    let table_end = (trailer.table_offset() + trailer.table_len()) as usize;
    let blocks = trailer.read_table(&file[trailer.table_offset() as usize..table_end])?;
    let index =
        trailer.read_index(blocks, &file.slice(table_end..table_end + trailer.index_len() as usize))?;
    let mut messages = Vec::new();
    for block in &index.blocks {
        let start = block.offset as usize;
        messages.extend(
            LoadedBlock::open(id, block, &file.slice(start..start + block.len as usize))?.messages()?,
        );
    }
    Ok((index, messages))
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
        let (file, blocks) = encode(ID, &messages, packed);
        let (index, found) = read_all(ID, &file).unwrap();
        assert_eq!(found, messages);
        assert_eq!(index.blocks, blocks);
        assert_eq!(index.messages(), messages.len() as u64);
        let entries: Vec<&IndexEntry> = index.entries.iter().flatten().collect();
        for (entry, message) in entries.into_iter().zip(&messages) {
            let IndexEntry { seq, ts, subject, header_len, payload_len } = entry;
            assert_eq!((*seq, *ts, &subject[..]), (message.seq, message.ts, message.record.subject()));
            assert_eq!(*header_len as usize, message.record.header().len());
            assert_eq!(*payload_len as usize, message.record.payload().len());
        }
        assert!(index.blocks.iter().all(|block| block.len as usize <= BLOCK_BYTES_MAX || block.count == 1));
        if packed {
            let plain = encode(ID, &messages, false).0.len();
            assert!(if messages.len() > 3 { file.len() < plain / 4 } else { file.len() <= plain });
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
    for file in [plain, packed] {
        every_flip_and_every_cut_of(&file);
    }
}

fn every_flip_and_every_cut_of(file: &Bytes) {
    for at in 0..file.len() {
        for bit in [1, 0x80] {
            let mut flipped = file.to_vec();
            flipped[at] ^= bit;
            let damage = read_all(ID, &flipped.into()).expect_err(&format!("byte {at}"));
            assert_eq!(damage.file, ID.file());
        }
    }
    for len in 0..file.len() {
        assert!(read_all(ID, &file.slice(..len)).is_err(), "cut to {len}");
    }
}

#[test]
fn bytes_of_another_segment_do_not_pass() {
    let (file, blocks) = encode(ID, &[message(5, "a.b", b"h", b"xyz")], false);
    for other in [SegmentId { number: 4, ..ID }, SegmentId { group: GroupId(8), ..ID }] {
        assert!(matches!(read_header(other, &file).unwrap_err().flaw, Flaw::Misplaced { .. }));
        assert!(matches!(
            read_trailer(other, file.len() as u64, &file).unwrap_err().flaw,
            Flaw::Misplaced { .. }
        ));
        let start = blocks[0].offset as usize;
        assert!(
            LoadedBlock::open(other, &blocks[0], &file.slice(start..))
                .and_then(LoadedBlock::checked)
                .is_err()
        );
    }
}

#[test]
fn numbers_on_disk_stay() {
    let (file, _) = encode(ID, &[message(5, "a.b", b"h", b"xyz")], false);
    assert_eq!(file[..28], *b"HWSEG\r\n\x1a\x01\0\0\0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
    let record = &file[HEADER_BYTES..HEADER_BYTES + RECORD_HEAD_BYTES + 7];
    assert_eq!(record[..4], 7u32.to_le_bytes());
    assert_eq!(record[8..16], 5u64.to_le_bytes());
    assert_eq!(record[24..39], *b"\x01\0\0\0\x03\0\0\0a.bhxyz");
    assert_eq!(file[file.len() - 8..], *b"HWSEGend");
    assert_eq!((HEADER_BYTES, TRAILER_BYTES, RECORD_HEAD_BYTES, TABLE_ROW_BYTES), (32, 72, 32, 32));
}
