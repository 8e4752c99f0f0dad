//! Archives that `nats-server` wrote, our own, and damaged ones.

use super::*;

/// What `nats-server` 2.15.1 wrote for a stream with five messages, two of them deleted, and a consumer.
const THEIRS: &[u8] = include_bytes!("testdata/nats-server-2.15.1.arc.s2");

fn read(bytes: &[u8], step: usize) -> Result<Vec<Item>, ArchiveError> {
    let (mut reader, mut items) = (Reader::default(), Vec::new());
    for part in bytes.chunks(step) {
        reader.push(part);
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
    }
    reader.finish()?;
    Ok(items)
}

fn message(seq: u64, ts: i64, subject: &str, header: &str, payload: &str) -> Item {
    let joined = Bytes::from([subject, header, payload].concat());
    let (subject_len, header_len) = (subject.len(), header.len());
    Item::Message(Message { seq: Seq(seq), ts: Time(ts), joined, subject_len, header_len })
}

fn ours() -> Vec<u8> {
    let mut writer = Writer::default();
    writer.state(Time(7), b"{}");
    writer.consumer(Time(8), b"C", b"[]");
    let large: String = (0..40_000).map(|number| format!("{number},")).collect();
    writer.message((Seq(3), Time(-9)), b"s.1", b"", b"");
    writer.message((Seq(u64::MAX), Time(i64::MAX)), b"s.2", b"NATS/1.0\r\n\r\n", large.as_bytes());
    writer.end();
    let mut bytes = Vec::new();
    while writer.ready() > 0 {
        bytes.extend(writer.take(1000));
    }
    bytes
}

#[test]
fn theirs_is_read() {
    let items = read(THEIRS, 100).expect("it is sound");
    let [Item::State(state), Item::Consumer(name, consumer), messages @ .., Item::End] = &items[..] else {
        panic!("{items:?}")
    };
    assert!(state.starts_with(b"{\"messages\":3,\"bytes\":189,\"first_seq\":1,"));
    assert_eq!(name, "C");
    assert!(consumer.ends_with(b"\"pending\":{\"2\":{\"Sequence\":2,\"Timestamp\":1795679480746530298}}}}"));
    let header = |number: u64| format!("NATS/1.0\r\nA: b{number}\r\n\r\n");
    let wanted = [1, 2, 4].map(|number| {
        let Item::Message(found) = &messages[if number == 4 { 2 } else { number as usize - 1 }] else {
            panic!("{messages:?}")
        };
        message(number, found.ts.0, &format!("s.{number}"), &header(number), &format!("hello {number}"))
    });
    assert_eq!(messages, wanted);
    assert!(
        messages
            .iter()
            .all(|item| matches!(item, Item::Message(m) if m.ts.0 / 1_000_000_000 == 1_795_679_480))
    );
}

#[test]
fn ours_comes_back_in_any_pieces() {
    let bytes = ours();
    let large: String = (0..40_000).map(|number| format!("{number},")).collect();
    let wanted = [
        Item::State(Bytes::from("{}")),
        Item::Consumer(Bytes::from("C"), Bytes::from("[]")),
        message(3, -9, "s.1", "", ""),
        message(u64::MAX, i64::MAX, "s.2", "NATS/1.0\r\n\r\n", &large),
        Item::End,
    ];
    for step in [1, 7, 4096, bytes.len()] {
        assert_eq!(read(&bytes, step).as_deref(), Ok(&wanted[..]), "{step}");
    }
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unseen() {
    let whole = read(THEIRS, THEIRS.len());
    for at in 0..THEIRS.len() {
        assert!(read(&THEIRS[..at], 50).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bytes = THEIRS.to_vec();
            bytes[at] ^= 1 << bit;
            // A flip in the type of a piece can make it one that is skipped; never other content.
            assert!(read(&bytes, 50) != whole, "byte {at} bit {bit}");
            assert!(read(&bytes, 50).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn what_is_no_archive_is_named() {
    let packed = |content: &[u8]| {
        let mut packer = Packer::default();
        packer.write(content);
        packer.flush();
        packer.out
    };
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let mut long = entry::MAGIC.to_vec();
    long.extend([0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0]);
    let mut endless = entry::MAGIC.to_vec();
    endless.extend([0xff; 10]);
    let mut trailing = ours();
    trailing.extend(&packed(b"more")[10..]);
    for (bytes, wanted) in [
        (b"hello world".to_vec(), ArchiveError::Corrupt),
        (packed(b"NATSARC2 and more"), ArchiveError::Invalid),
        (packed(&tar), ArchiveError::Tar),
        (packed(&long), ArchiveError::TooLarge),
        (packed(&endless), ArchiveError::Invalid),
        (packed(entry::MAGIC), ArchiveError::Truncated),
        (packed(b""), ArchiveError::Truncated),
        (Vec::new(), ArchiveError::Truncated),
        (trailing, ArchiveError::Invalid),
        // A block that says that it holds 256 MiB.
        (b"\xff\x06\0\0S2sTwO\0\x09\0\0\0\0\0\0\x80\x80\x80\x80\x01".to_vec(), ArchiveError::Corrupt),
    ] {
        assert_eq!(read(&bytes, 64).err(), Some(wanted), "{bytes:?}");
    }
}

#[test]
fn pieces_that_mean_nothing_are_skipped() {
    let mut bytes = ours();
    let padding = [&b"\xfe\x00\x02\x00"[..], &[7; 512]].concat();
    bytes.splice(10..10, padding);
    assert_eq!(read(&bytes, 33).as_deref().map(<[Item]>::len), Ok(5));
}
