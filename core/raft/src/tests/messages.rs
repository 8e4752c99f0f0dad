//! Bytes: what is written is read, what is damaged is refused, and nothing is allocated for what is only announced.

use bytes::Bytes;
use hw_kit::{LogIndex, NodeId};
use proptest::prelude::*;

use crate::{Body, DecodeError, Entry, EntryKind, MemberChange, MemberStep, Members, Message};

fn index() -> impl Strategy<Value = LogIndex> {
    prop_oneof![0..300u64, any::<u64>()].prop_map(LogIndex)
}

fn term() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, any::<u64>()]
}

fn append() -> impl Strategy<Value = Body> {
    let prev = (0..1u64 << 60, 0..1u64 << 60);
    let entry = (0..200u64, any::<bool>(), prop::collection::vec(any::<u8>(), 0..200));
    (prev, index(), prop::collection::vec(entry, 0..8)).prop_map(|((at, mut term), commit, parts)| {
        let mut entries = Vec::new();
        for (offset, (more, is_change, body)) in (1..).zip(parts) {
            term += more;
            let kind = if is_change { EntryKind::Change } else { EntryKind::Batch };
            entries.push(Entry { index: LogIndex(at + offset), term, kind, body: body.into() });
        }
        let first = entries.first().map_or(term, |entry| entry.term);
        Body::Append { prev: (LogIndex(at), first), commit, entries }
    })
}

fn body() -> impl Strategy<Value = Body> {
    let flags = (any::<bool>(), any::<bool>());
    prop_oneof![
        4 => append(),
        1 => (index(), index()).prop_map(|(index, commit)| Body::Accepted { index, commit }),
        1 => (index(), (index(), term()), index())
            .prop_map(|(index, hint, commit)| Body::Rejected { index, hint, commit }),
        1 => Just(Body::WantsState),
        1 => index().prop_map(|commit| Body::Heartbeat { commit }),
        1 => index().prop_map(|commit| Body::HeartbeatAnswer { commit }),
        1 => (flags, (index(), term()), (index(), term())).prop_map(
            |((is_poll, is_transfer), last, commit)| Body::Vote { is_poll, is_transfer, last, commit }
        ),
        1 => (flags, (index(), term())).prop_map(
            |((is_poll, is_granted), commit)| Body::VoteAnswer { is_poll, is_granted, commit }
        ),
        1 => Just(Body::TakeOver),
    ]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(term in term(), body in body()) {
        let message = Message { term, body };
        prop_assert_eq!(Message::decode(encoded(&message).into()), Ok(message));
    }

    #[test]
    fn what_is_cut_or_followed_is_refused(term in term(), body in body(), at in any::<prop::sample::Index>()) {
        let mut bytes = encoded(&Message { term, body });
        let cut = Bytes::copy_from_slice(&bytes[..at.index(bytes.len())]);
        prop_assert_eq!(Message::decode(cut), Err(DecodeError::Short));
        bytes.push(0);
        prop_assert_eq!(Message::decode(bytes.into()), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn what_is_damaged_is_refused_or_is_another_message(
        term in term(), body in body(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = encoded(&Message { term, body });
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(message) = Message::decode(bytes.clone().into()) {
            // One value has one form.
            prop_assert_eq!(encoded(&message), bytes);
        }
    }

    #[test]
    fn any_bytes_panic_nothing(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(bytes.clone().into());
        if let [version, kind, ..] = &mut bytes[..] {
            *version = 1;
            *kind = 1 + *kind % 9;
        }
        let _ = Message::decode(bytes.clone().into());
        let _ = Members::decode(bytes.clone().into());
        let _ = MemberChange::decode(bytes.into());
    }

    #[test]
    fn members_are_read_as_written(lists in prop::array::uniform4(prop::collection::vec(any::<u64>(), 0..5)), auto_leave in any::<bool>()) {
        let [voters, learners, outgoing, learners_next] =
            lists.map(|list| list.into_iter().map(NodeId).collect::<Vec<_>>());
        let members = Members { voters, learners, outgoing, learners_next, auto_leave };
        let mut bytes = Vec::new();
        members.encode(&mut bytes);
        prop_assert_eq!(Members::decode(bytes.into()), Ok(members));
    }
}

#[test]
fn entries_are_parts_of_the_buffer() {
    let body = Bytes::from(vec![7u8; 1000]);
    let entry = Entry { index: LogIndex(1), term: 1, kind: EntryKind::Batch, body };
    let append = Body::Append { prev: (LogIndex(0), 0), commit: LogIndex(0), entries: vec![entry] };
    let buffer = Bytes::from(encoded(&Message { term: 1, body: append }));
    let Ok(Message { body: Body::Append { entries, .. }, .. }) = Message::decode(buffer.clone()) else {
        panic!("not the message");
    };
    assert!(buffer.as_ptr_range().contains(&entries[0].body.as_ptr()));
}

/// What is announced and not there costs nothing.
#[test]
fn announcements_are_not_believed() {
    for (bytes, error) in [
        // 2^63 entries; an entry of 2^63 bytes; a version and a kind from elsewhere; numbers longer than numbers are.
        (&b"\x01\x01\x01\x00\x00\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"[..], DecodeError::Short),
        (b"\x01\x01\x01\x00\x00\x00\x01\x00\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", DecodeError::Short),
        (b"\x02\x01\x01", DecodeError::Version(2)),
        (b"\x01\x0a\x01", DecodeError::Kind(10)),
        (b"\x01\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00", DecodeError::Number),
        (b"\x01\x05\x80\x00\x00", DecodeError::Number),
        (b"", DecodeError::Short),
    ] {
        assert_eq!(Message::decode(Bytes::from_static(bytes)), Err(error), "{bytes:x?}");
    }
}

/// These forms are on disks and on the wire between versions: they stay.
#[test]
fn forms_that_stay() {
    let entry = |index, term, kind, body: &'static [u8]| Entry {
        index: LogIndex(index),
        term,
        kind,
        body: Bytes::from_static(body),
    };
    let entries = vec![entry(8, 3, EntryKind::Batch, b"ab"), entry(9, 5, EntryKind::Change, b"")];
    let at = |index, term| (LogIndex(index), term);
    for (body, bytes) in [
        (
            Body::Append { prev: at(7, 2), commit: LogIndex(300), entries },
            &[1, 1, 5, 7, 2, 0xac, 2, 2, 0, 1, 2, b'a', b'b', 1, 2, 0][..],
        ),
        (Body::Accepted { index: LogIndex(9), commit: LogIndex(8) }, &[1, 2, 5, 9, 8]),
        (Body::Rejected { index: LogIndex(9), hint: at(4, 2), commit: LogIndex(3) }, &[1, 3, 5, 9, 4, 2, 3]),
        (Body::WantsState, &[1, 4, 5]),
        (Body::Heartbeat { commit: LogIndex(3) }, &[1, 5, 5, 3]),
        (Body::HeartbeatAnswer { commit: LogIndex(3) }, &[1, 6, 5, 3]),
        (
            Body::Vote { is_poll: false, is_transfer: true, last: at(9, 4), commit: at(8, 3) },
            &[1, 7, 5, 0, 1, 9, 4, 8, 3],
        ),
        (Body::VoteAnswer { is_poll: true, is_granted: false, commit: at(8, 3) }, &[1, 8, 5, 1, 0, 8, 3]),
        (Body::TakeOver, &[1, 9, 5]),
    ] {
        assert_eq!(encoded(&Message { term: 5, body }), bytes);
    }
    let members = Members {
        voters: vec![NodeId(1), NodeId(200)],
        learners: vec![NodeId(3)],
        outgoing: vec![NodeId(4)],
        learners_next: vec![NodeId(4)],
        auto_leave: true,
    };
    let mut bytes = Vec::new();
    members.encode(&mut bytes);
    assert_eq!(bytes, [1, 1, 2, 1, 200, 1, 1, 3, 1, 4, 1, 4]);
    let steps =
        vec![MemberStep::Voter(NodeId(1)), MemberStep::Remove(NodeId(2)), MemberStep::Learner(NodeId(300))];
    let mut bytes = Vec::new();
    MemberChange { steps }.encode(true, &mut bytes);
    assert_eq!(bytes, [1, 1, 3, 0, 1, 1, 2, 2, 0xac, 2]);
}
