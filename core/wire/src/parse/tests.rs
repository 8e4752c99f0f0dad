//! Tables of protocol text, and the two properties: fragments do not matter, nothing panics.

use proptest::prelude::*;

use super::*;

/// Everything that `bytes` hold, as text, and the error that ends them.
fn all(bytes: &[u8], limits: &Limits) -> (Vec<String>, usize, Option<ParseError>) {
    let (mut ops, mut at) = (Vec::new(), 0);
    loop {
        match parse(&bytes[at..], limits) {
            Ok(Step::Op(op, consumed)) => {
                assert!(consumed > 0);
                ops.push(show(&op));
                at += consumed;
            }
            Ok(Step::Incomplete { need }) => {
                assert!(need > bytes.len() - at);
                return (ops, at, None);
            }
            Err(error) => return (ops, at, Some(error)),
        }
    }
}

fn show(op: &ClientOp<'_>) -> String {
    let text = |b: &[u8]| b.escape_ascii().to_string();
    match op {
        ClientOp::Pub(p) => {
            format!("pub {}|{}|{}|{}", text(p.subject), text(p.reply), text(p.header), text(p.payload))
        }
        ClientOp::Sub { subject, queue, sid } => {
            format!("sub {}|{}|{}", text(subject), queue.map(text).unwrap_or_default(), text(sid))
        }
        ClientOp::Unsub { sid, max } => format!("unsub {} {max:?}", text(sid)),
        ClientOp::Connect(json) => format!("connect {}", text(json)),
        ClientOp::Info(json) => format!("info {}", text(json)),
        ClientOp::Err(what) => format!("err {}", text(what)),
        ClientOp::Ping => "ping".into(),
        ClientOp::Pong => "pong".into(),
        ClientOp::Ok => "ok".into(),
    }
}

#[test]
fn operations() {
    let cases: &[(&str, &[&str])] = &[
        ("PUB foo 2\r\nhi\r\n", &["pub foo|||hi"]),
        ("PUB foo bar 2\r\nhi\r\n", &["pub foo|bar||hi"]),
        ("PUB foo 0\r\n\r\n", &["pub foo|||"]),
        ("PUB foo 001\r\nx\r\n", &["pub foo|||x"]),
        ("pub\tfoo  \t bar\t2  \r\nhi\r\n", &["pub foo|bar||hi"]),
        ("PUB   a  1  \r\nx\r\nping\r\n", &["pub a|||x", "ping"]),
        ("PUB foo 4\r\n\r\n\r\n\r\n", &["pub foo|||\\r\\n\\r\\n"]),
        ("PUB a 1\nx\r\nPING\n", &["pub a|||x", "ping"]),
        ("HPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", &["pub foo||NATS/1.0\\r\\n\\r\\n|hi"]),
        ("hpub foo bar 12 12\r\nNATS/1.0\r\n\r\n\r\n", &["pub foo|bar|NATS/1.0\\r\\n\\r\\n|"]),
        ("HPUB foo 0 4\r\nabcd\r\n", &["pub foo|||abcd"]),
        ("SUB foo 1\r\nSUB foo q 2\r\nsub   a\t \t7  \r\n", &["sub foo||1", "sub foo|q|2", "sub a||7"]),
        (
            "UNSUB 1\r\nUNSUB 1 5\r\nUNSUB 1 x\r\nUNSUB 1 0\r\n",
            &["unsub 1 None", "unsub 1 Some(5)", "unsub 1 None", "unsub 1 None"],
        ),
        (
            "CONNECT {}\r\nCONNECT{}\r\ncOnNeCt  {} \r\nCONNECT\r\n",
            &["connect {}", "connect {}", "connect {} ", "connect "],
        ),
        ("PING\r\nPONG\r\nPINGX\r\npInG  \r\nPING X\r\n", &["ping", "pong", "ping", "ping", "ping"]),
        ("+OK\r\n+OK hello\r\n+OKX\r\nINFO {}\r\n-ERR x\r\n", &["ok", "ok", "ok", "info {}", "err x"]),
    ];
    for (text, ops) in cases {
        let (got, at, error) = all(text.as_bytes(), &Limits::default());
        assert_eq!(
            (got, at, error),
            (ops.iter().map(|s| s.to_string()).collect(), text.len(), None),
            "{text}"
        );
    }
}

fn arguments(verb: &'static str, what: BadArguments) -> ParseError {
    ParseError::Arguments { verb, what }
}

#[test]
fn errors() {
    use BadArguments::*;
    let unknown = ParseError::UnknownOperation;
    let cases: &[(&str, ParseError)] = &[
        ("F", unknown),
        ("P\r", unknown),
        ("PX", unknown),
        ("\r\n", unknown),
        (" PING\r\n", unknown),
        ("PUB\r\n", unknown),
        ("PUBX a 1\r\n", unknown),
        ("HPUBX", unknown),
        ("UNSUB\r\n", unknown),
        ("-ERR\r\n", unknown),
        ("+X", unknown),
        ("MSG foo 1 2\r\nab\r\n", unknown),
        ("RS+ a 1\r\n", unknown),
        ("PUB foo 2\r\nabcd\r\n", unknown),
        ("PUB a 1\r\nx\n\n", unknown),
        ("PUB \r\n", arguments("Pub", Count)),
        ("PUB foo\r\n", arguments("Pub", Count)),
        ("PUB a b c 1\r\n", arguments("Pub", Count)),
        ("PUB foo x\r\n", arguments("Pub", Size)),
        ("PUB foo -1\r\n", arguments("Pub", Size)),
        ("PUB foo +1\r\n", arguments("Pub", Size)),
        ("PUB foo 99999999999\r\n", arguments("Pub", Size)),
        ("PUB foo 9999999999999999999999\r\n", arguments("Pub", Size)),
        ("PUB foo 1048577\r\n", ParseError::MaxPayload { size: 1048577, max: 1048576 }),
        ("HPUB foo 12 1048577\r\n", ParseError::MaxPayload { size: 1048577, max: 1048576 }),
        ("HPUB foo\r\n", arguments("HeaderPub", Count)),
        ("HPUB foo 14\r\n", arguments("HeaderPub", Count)),
        ("HPUB foo a b c 0 4\r\n", arguments("HeaderPub", Count)),
        ("HPUB foo 15 14\r\n", arguments("HeaderPub", HeaderLargerThanTotal)),
        ("HPUB a x 1\r\n", arguments("HeaderPub", HeaderSize)),
        ("HPUB a 1 x\r\n", arguments("HeaderPub", Size)),
        ("SUB \r\n", arguments("Sub", Count)),
        ("SUB foo\r\n", arguments("Sub", Count)),
        ("SUB foo a b c\r\n", arguments("Sub", Count)),
        ("UNSUB \r\n", arguments("Unsub", Count)),
        ("UNSUB 1 2 3\r\n", arguments("Unsub", Count)),
        ("PUB a 1\r\r\nx\r\n", ParseError::CarriageReturn),
        ("SUB a\rb 1\r\n", ParseError::CarriageReturn),
    ];
    for (text, error) in cases {
        assert_eq!(all(text.as_bytes(), &Limits::default()), (vec![], 0, Some(*error)), "{text:?}");
    }
    let without = Limits { headers: false, ..Limits::default() };
    assert_eq!(parse(b"HPUB foo", &without), Err(ParseError::HeadersNotSupported));
}

#[test]
fn control_lines_count_their_arguments_only() {
    let limits = Limits { max_control_line: 512, ..Limits::default() };
    for (verb, tail) in [("SUB ", " 1\r\n"), ("PUB ", " 1\r\nx\r\n"), ("PUB   ", " 1\r\nx\r\n")] {
        let fits = format!("{verb}{}{tail}", "a".repeat(510));
        assert_eq!(all(fits.as_bytes(), &limits).2, None);
        let long = format!("{verb}{}{tail}", "a".repeat(511));
        assert_eq!(all(long.as_bytes(), &limits).2, Some(ParseError::ControlLine));
    }
    for endless in [format!("SUB {}", "a".repeat(513)), format!("PING{}", "x".repeat(5000))] {
        assert_eq!(parse(endless.as_bytes(), &limits), Err(ParseError::ControlLine));
    }
    assert_eq!(
        parse(" ".repeat(5000).replacen(' ', "PUB ", 1).as_bytes(), &limits),
        Err(ParseError::ControlLine)
    );
    assert_eq!(all(b"PING                      \r\n", &Limits { max_control_line: 4, ..limits }).2, None);
}

#[test]
fn a_partial_message_says_what_it_needs() {
    let cases: &[(&str, usize)] = &[
        ("", 4),
        ("PU", 4),
        ("PUB", 4),
        ("PUB foo", 8),
        ("PUB foo 5\r\n", 18),
        ("PUB foo 5\r\nhello", 18),
        ("PUB foo 5\r\nhello\r", 18),
        ("HPUB a 12 112\r\n", 129),
    ];
    for (text, need) in cases {
        assert_eq!(
            parse(text.as_bytes(), &Limits::default()),
            Ok(Step::Incomplete { need: *need }),
            "{text:?}"
        );
    }
}

fn operation() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        ("[a-z.*>]{1,12}", prop::option::of("[A-Z]{1,6}"), body.clone()).prop_map(
            |(subject, reply, body)| {
                let reply = reply.map(|r| format!(" {r}")).unwrap_or_default();
                [format!("PUB {subject}{reply} {}\r\n", body.len()).as_bytes(), &body, b"\r\n"].concat()
            }
        ),
        ("[a-z.]{1,12}", body).prop_map(|(subject, body)| {
            let header = b"NATS/1.0\r\nA: b\r\n\r\n";
            let sizes = format!("HPUB {subject} {} {}\r\n", header.len(), header.len() + body.len());
            [sizes.as_bytes(), header, &body, b"\r\n"].concat()
        }),
        "(SUB|sub) [a-z.*>]{1,9}( q)?[ \t]{1,3}[0-9]{1,3}\r?\n".prop_map(String::into_bytes),
        "UNSUB [0-9]{1,3}( [0-9])?\r\n".prop_map(String::into_bytes),
        "(PING|PONG|\\+OK)\r\n|CONNECT \\{\\}\r\n|FOO\r\n|PUB x\r\n".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn fragments_do_not_matter(
        ops in prop::collection::vec(operation(), 1..12),
        cuts in prop::collection::vec(1usize..30, 1..60),
    ) {
        let bytes = ops.concat();
        let whole = all(&bytes, &Limits::default());
        let (mut got, mut kept, mut at, mut error) = (Vec::new(), Vec::new(), 0, None);
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let end = (at + cut).min(bytes.len());
            kept.extend_from_slice(&bytes[at..end]);
            at = end;
            let (ops, consumed, e) = all(&kept, &Limits::default());
            got.extend(ops);
            kept.drain(..consumed);
            error = e;
            if e.is_some() {
                break;
            }
        }
        prop_assert_eq!(got, whole.0);
        prop_assert_eq!(error, whole.2);
    }

    #[test]
    fn nothing_panics(bytes: Vec<u8>, verb in 0usize..10, limit in 0usize..64) {
        let limits = Limits { max_control_line: limit, max_payload: limit, headers: limit % 2 == 0 };
        all(&bytes, &limits);
        let (verb, _) = VERBS[verb];
        all(&[verb, b" ", &bytes].concat(), &limits);
        all(&[verb, b" ", &bytes, b"\r\n"].concat(), &limits);
    }
}
