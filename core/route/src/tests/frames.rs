//! Frames as bytes.

use crate::frame::{Decoder, Kind, put, put_packed};
use crate::hello::News;
use crate::limits::{PIECE_BYTES, TEXT_BYTES_MAX};
use crate::*;

#[test]
fn a_frame_to_the_byte() {
    let mut out = Vec::new();
    put(&mut out, Kind::Body(Channel::Js), b"abc", false);
    assert_eq!(out[..8], [3, 0, 0, 0, 17, 0, 0, 0]);
    assert_eq!(out[8..12], crc32fast::hash(b"\x03\0\0\0\x11\0\0\0abc").to_le_bytes());
    assert_eq!(&out[12..], b"abc");
}

#[test]
fn pieces_become_a_body_and_beats_overtake() {
    let mut out = Vec::new();
    put(&mut out, Kind::Body(Channel::Hub), b"one", true);
    put(&mut out, Kind::Beat, b"12345678", false);
    put(&mut out, Kind::Body(Channel::Hub), b"two", false);
    let mut decoder = Decoder::default();
    let mut got = vec![];
    for byte in out {
        decoder.push(&[byte]);
        got.extend(decoder.next().unwrap());
    }
    assert_eq!(got[0], (Kind::Beat, "12345678".into()));
    assert_eq!(got[1], (Kind::Body(Channel::Hub), "onetwo".into()));
    assert_eq!(got.len(), 2);
}

#[test]
fn compressed_pieces_become_the_same_body() {
    let piece = b"orders.new ".repeat(1000);
    let body = Kind::Body(Channel::Hub);
    let (mut packed, mut plain) = (Vec::new(), Vec::new());
    for (more, effort) in [(true, Effort::Fast), (true, Effort::Off), (false, Effort::Best)] {
        put_packed(&mut packed, body, (&piece, more), effort);
        put(&mut plain, body, &piece, more);
    }
    assert!(packed.len() < plain.len() / 2, "{}", packed.len());
    let got = [packed, plain].map(|bytes| {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        decoder.next()
    });
    assert_eq!(got[0], Ok(Some((body, piece.repeat(3).into()))));
    assert_eq!(got[0], got[1]);
    // One that says that it is compressed and is not.
    let mut bad = Vec::new();
    put(&mut bad, body, b"no block", false);
    bad[5] = 2;
    let sum = crc32fast::hash(&[&bad[..8], b"no block"].concat());
    bad[8..12].copy_from_slice(&sum.to_le_bytes());
    let mut decoder = Decoder::default();
    decoder.push(&bad);
    assert_eq!(decoder.next(), Err(FrameError::Packed));
}

#[test]
fn what_is_no_frame_is_refused() {
    let mut good = Vec::new();
    put(&mut good, Kind::Beat, b"12345678", false);
    for (at, wanted) in [
        (0, FrameError::Checksum),
        (3, FrameError::TooLong(0x0100_0008)),
        (4, FrameError::Kind(5)),
        (5, FrameError::Checksum),
        (7, FrameError::Kind(0)),
        (9, FrameError::Checksum),
        (19, FrameError::Checksum),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad.extend_from_slice(&[0; 64]);
        let mut decoder = Decoder::default();
        decoder.push(&bad);
        let got = decoder.next().unwrap_err();
        // A kind that exists fails its checksum.
        let wanted = if at == 4 { FrameError::Checksum } else { wanted };
        assert_eq!(got, wanted, "byte {at}");
    }
    let mut mixed = Vec::new();
    put(&mut mixed, Kind::Body(Channel::Hub), b"one", true);
    put(&mut mixed, Kind::Body(Channel::Js), b"two", false);
    let mut decoder = Decoder::default();
    decoder.push(&mixed);
    assert_eq!(decoder.next(), Err(FrameError::Mixed));
    let mut long = Vec::new();
    put(&mut long, Kind::News, &vec![0; PIECE_BYTES], false);
    long[0] += 1;
    let mut decoder = Decoder::default();
    decoder.push(&long);
    assert!(matches!(decoder.next(), Err(FrameError::TooLong(_))));
}

#[test]
fn hellos_both_ways() {
    let hello = Hello {
        versions: (1, 2),
        server_id: "N".into(),
        name: "ü".into(),
        node: hw_kit::NodeId(7),
        release: "2".into(),
        user: "u".into(),
        pass: "p".into(),
        news: News {
            cluster: "c".into(),
            dynamic: true,
            address: ":1".into(),
            client_urls: vec!["a:1".into(), "b:2".into()],
            ws_urls: vec![],
            lame_duck: true,
            members: vec![("N2".into(), "x:3".into())],
        },
        compression: Wish::Best,
    };
    let bytes = hello.encode();
    assert_eq!(Hello::decode(&bytes), Ok(hello.clone()));
    // Every shorter one is refused, and none panics.
    for len in 0..bytes.len() - 1 {
        assert!(Hello::decode(&bytes[..len]).is_err(), "{len}");
    }
    // Builds that did not compress end here.
    let earlier = Hello { compression: Wish::Off, ..hello.clone() };
    assert_eq!(Hello::decode(&bytes[..bytes.len() - 1]), Ok(earlier));
    // What a newer version adds is left out.
    assert_eq!(Hello::decode(&[&bytes[..], b"more"].concat()), Ok(hello));
    let long = Hello { name: "é".repeat(TEXT_BYTES_MAX), ..Hello::default() };
    assert_eq!(Hello::decode(&long.encode()).unwrap().name.len(), TEXT_BYTES_MAX);
}
