//! Archives of backups: any bytes in any pieces.

use hw_archive::{Item, Reader, Writer};
use hw_kit::{Seq, Time};

pub(super) const WORDS: &[&str] =
    &["NATSARC1", "S2sTwO", "sNaPpY", "state.json", "consumers/", "{}", "s.a", "NATS/1.0\r\n\r\n"];

pub(super) fn corpus() -> Vec<Vec<u8>> {
    let mut writer = Writer::default();
    writer.state(Time(1), b"{\"messages\":2,\"first_seq\":1,\"last_seq\":3,\"consumer_count\":1}");
    writer.consumer(Time(2), b"C", b"{\"config\":{},\"state\":{}}");
    writer.message((Seq(1), Time(3)), b"s.a", b"", b"hello");
    writer.message((Seq(3), Time(4)), b"s.b", b"NATS/1.0\r\n\r\n", b"hello hello hello");
    writer.end();
    let whole = writer.take(usize::MAX);
    vec![
        whole.clone(),
        [b"\xff\x06\0\0S2sTwO\xfe\x02\0\0xx".as_slice(), &whole].concat(),
        b"NATSARC1".to_vec(),
    ]
}

/// What was read once reads the same in other pieces, and is never more than the input could hold.
pub fn fuzz_archive(data: &[u8]) {
    let step = usize::from(data.first().copied().unwrap_or(1)).max(1);
    let read = |step: usize| {
        let (mut reader, mut items) = (Reader::default(), Vec::<Item>::new());
        for piece in data.chunks(step) {
            reader.push(piece);
            loop {
                match reader.next_item() {
                    Ok(Some(item)) => items.push(item),
                    Ok(None) => break,
                    Err(error) => return (items, Some(error)),
                }
            }
        }
        let end = reader.finish().err();
        (items, end)
    };
    assert_eq!(read(step), read(data.len().max(1)), "pieces make no difference");
}
