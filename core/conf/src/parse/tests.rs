//! The grammar: what nats-server 2.15.1 accepts and refuses, and that no text panics.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A short way to write a tree down.
fn show(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Integer(number) => number.to_string(),
        ValueKind::Float(number) => format!("{number:?}"),
        ValueKind::Bool(value) => value.to_string(),
        ValueKind::Date(time) => format!("@{}", time.0 / 1_000_000_000),
        ValueKind::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| show(&item.kind)).collect();
            format!("[{}]", items.join(" "))
        }
        ValueKind::Map(entries) => format!("{{{}}}", show_all(entries)),
    }
}

fn show_all(entries: &[Entry]) -> String {
    let entries: Vec<String> = entries.iter().map(|e| format!("{}={}", e.key, show(&e.value.kind))).collect();
    entries.join(" ")
}

fn parse_with(text: &str, env: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Vec<Entry>, ConfError> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let mut read = |path: &Path| match files.get(path.to_str().unwrap_or_default()) {
        Some(text) => Ok((*text).to_owned()),
        None => Err(format!("open {}: no such file or directory", path.display())),
    };
    let env = |name: &str| env.get(name).map(|text| (*text).to_owned());
    parse_text(Path::new("c.conf"), text, &mut Source { env: &env, read: &mut read })
}

fn parse(text: &str) -> Result<String, String> {
    parse_with(text, &[], &[]).map(|entries| show_all(&entries)).map_err(|error| error.to_string())
}

#[test]
fn accepted() {
    let cases = [
        ("", ""),
        ("\n# x\n// y\n", ""),
        ("{}", ""),
        ("{ \"port\": 1 }", "port=1"),
        ("{\n\"port\": 1,\n\"zz\": {\"a\": [1, 2], \"b\": true}\n}\n", "port=1 zz={a=[1 2] b=true}"),
        ("{\"port\":1,}", "port=1"),
        ("# c\n{\"zz\":1}\n# d", "zz=1"),
        ("zz 1", "zz=1"),
        ("zz=1", "zz=1"),
        ("zz = 1", "zz=1"),
        ("zz:1", "zz=1"),
        ("zz : 1", "zz=1"),
        ("zz\t1", "zz=1"),
        ("\"zz\"1", "zz=1"),
        ("'z z': 1", "z z=1"),
        ("zz\n1", "zz=1"),
        ("zz\n{\na 1\n}", "zz={a=1}"),
        ("zz: 1; yy: 2", "zz=1 yy=2"),
        ("zz: 1, yy: 2", "zz=1 yy=2"),
        ("zz {}, yy {}", "zz={} yy={}"),
        ("zz { a 1, b 2 }", "zz={a=1 b=2}"),
        ("zz { a: 1; b: 2; }", "zz={a=1 b=2}"),
        ("zz { a: x\n b: y }", "zz={a=\"x\" b=\"y\"}"),
        ("zz {a {b {c 1}}}", "zz={a={b={c=1}}}"),
        ("zz [1, 2]", "zz=[1 2]"),
        ("zz [1,2,]", "zz=[1 2]"),
        ("zz [\n1\n2\n3\n]", "zz=[1 2 3]"),
        ("zz [a,b]", "zz=[\"a\" \"b\"]"),
        ("zz [# c\n1 # c ]\n2 // c\n]", "zz=[1 2]"),
        ("zz [{a 1}, {b 2}]", "zz=[{a=1} {b=2}]"),
        ("zz [{a 1}\n{b 2}]", "zz=[{a=1} {b=2}]"),
        ("zz [[1],[]]", "zz=[[1] []]"),
        ("zz { # c\n a 1 # c\n // d\n} # e", "zz={a=1}"),
        ("zz: 1\r\nyy: 2\r\n", "zz=1 yy=2"),
        ("port: 1\nport: 2", "port=2"),
        ("zz: \"a\\n\\t\\r\\\"\\\\b\\x41\"", "zz=\"a\\n\\t\\r\\\"\\\\bA\""),
        ("zz: 'a\\nb'", "zz=\"a\\\\nb\""),
        ("zz: \"a\nb\"", "zz=\"a\\nb\""),
        ("zz: 'a\"b'", "zz=\"a\\\"b\""),
        ("zz: \"\\xc3\\xa9\"", "zz=\"é\""),
        ("zz: pässwörd", "zz=\"pässwörd\""),
        ("zz: >", "zz=\">\""),
        ("zz: foo.>", "zz=\"foo.>\""),
        ("zz: leaf://h:p", "zz=\"leaf://h:p\""),
        ("zz: 127.0.0.1:-1", "zz=\"127.0.0.1:-1\""),
        ("zz: a#b", "zz=\"a#b\""),
        ("zz: a//b", "zz=\"a//b\""),
        ("zz: a=b", "zz=\"a=b\""),
        ("zz: abc # c", "zz=\"abc\""),
        ("zz: abc // c", "zz=\"abc\""),
        ("zz: a;", "zz=\"a\""),
        ("zz: #secret", "zz=\"#secret\""),
        ("zz: /", "zz=\"/\""),
        ("zz: \\\"a", "zz=\"\\\"a\""),
        ("zz: $2a$11$abc", "zz=\"$2a$11$abc\""),
        ("zz: \"$x\"", "zz=\"$x\""),
        ("zz: a$x", "zz=\"a$x\""),
        ("zz: (\nabc\n)\n", "zz=\"\\nabc\\n\""),
        ("zz: (a\n) x\n)\nyy 1", "zz=\"a\\n) x\\n\" yy=1"),
        ("zz: (\r\nabc\r\n)\r\n", "zz=\"\\r\\nabc\\r\\n\""),
        ("zz { a (\nx\n)\n b 1 }", "zz={a=\"\\nx\\n\" b=1}"),
        ("\u{feff}zz: 1", "zz=1"),
        ("$x: 1", "$x=1"),
        ("include: 1", "include=1"),
    ];
    for (text, tree) in cases {
        assert_eq!(parse(text).as_deref(), Ok(tree), "{text:?}");
    }
}

#[test]
fn refused() {
    let map_end = "Expected a map value terminator \",\" or a map terminator \"}\", but got 'b' instead.";
    let cases = [
        ("{", "1:2", "Unexpected EOF processing map."),
        ("zz: {\n", "2:1", "Unexpected EOF processing map."),
        (
            "zz [1",
            "1:6",
            "Expected an array value terminator \",\" or an array terminator \"]\", but got the end of the file instead.",
        ),
        ("zz [", "1:5", "Unexpected EOF processing array."),
        ("zz [,]", "1:5", "Unexpected array value terminator ','."),
        (
            "zz [a b]",
            "1:7",
            "Expected an array value terminator \",\" or an array terminator \"]\", but got 'b' instead.",
        ),
        (
            "zz [1;2]",
            "1:6",
            "Expected an array value terminator \",\" or an array terminator \"]\", but got ';' instead.",
        ),
        ("zz { a 1 b 2 }", "1:10", map_end),
        (
            "a 1\nzz 1 2",
            "2:6",
            "Expected a top-level value to end with a new line, comment or EOF, but got '2' instead.",
        ),
        (
            "zz: \"a\" b",
            "1:9",
            "Expected a top-level value to end with a new line, comment or EOF, but got 'b' instead.",
        ),
        ("zz:\n1", "1:4", "Expected value but found new line"),
        ("zz", "1:3", "Expected value but found the end of the file"),
        ("zz: }", "1:5", "Expected value but found '}'"),
        ("zz {a}", "1:7", "Expected value but found the end of the file"),
        (": 1", "1:1", "Unexpected key separator ':'"),
        ("= 1", "1:1", "Unexpected key separator '='"),
        ("zz: 1 }", "1:7", "Unexpected '}' without a map that it could end"),
        ("{\"port\": 1}\nport: 2", "2:1", "Expected nothing after the last '}', but got 'p'"),
        ("zz: \"a", "1:5", "Unexpected EOF."),
        ("zz: 'a\n", "1:5", "Unexpected EOF."),
        (
            "zz: \"\\q\"",
            "1:6",
            "Invalid escape character 'q'. Only the following escape characters are allowed: \\xXX, \\t, \\n, \\r, \\\", \\\\.",
        ),
        ("zz: \"\\x4\"", "1:6", "Expected two hexadecimal digits after '\\x', but got '4\\\"'"),
        ("zz: \"\\xff\"", "1:5", "The string's \\x escapes are not UTF-8"),
        ("zz: (abc)", "1:5", "Unexpected EOF processing block."),
        ("zz: (\nabc\n) \n", "1:5", "Unexpected EOF processing block."),
        ("zz: -x", "1:5", "Expected a digit but got 'x'."),
        ("zz: .5", "1:5", "Floats must start with a digit"),
        ("zz: 5.", "1:5", "Floats must have a digit after the '.'"),
        ("zz: 1-2", "1:5", "All ISO8601 dates must be in full Zulu form."),
        ("zz: 1\nyy: \"a\0\"", "2:7", "Unexpected NUL character"),
        ("include\nva.conf", "1:8", "Expected include value but found new line"),
        ("include {a: 1}", "1:9", "Expected include value but found start of a map"),
    ];
    for (text, place, detail) in cases {
        let line = place.split(':').next().unwrap();
        assert_eq!(
            parse(text),
            Err(format!("c.conf:{place}: Parse error on line {line}: '{detail}'")),
            "{text:?}"
        );
    }
    assert_eq!(
        parse("zz: 99999999999999999999").unwrap_err(),
        "c.conf:1:5: integer '99999999999999999999' is out of the range"
    );
}

#[test]
fn depth_is_limited() {
    for (open, close) in [("[", "]"), ("{a ", "}")] {
        let deep = |depth: usize| format!("zz {}1{}", open.repeat(depth), close.repeat(depth));
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        let error = parse(&deep(100_000)).unwrap_err();
        assert!(error.ends_with("nested too deeply: maps and arrays"), "{error}");
    }
}

#[test]
fn variables() {
    let env = [
        ("N", "12"),
        ("S", "abc"),
        ("Q", "\"a b\""),
        ("SIZE", "10k"),
        ("TWO", "$N"),
        ("LIST", "[a]"),
        ("EMPTY", ""),
        ("HASH", "$2a$11$abc"),
        ("LOOP", "$LOOP"),
        ("WORDS", "a b"),
        ("LINES", "a\nb: 1"),
        ("V.w-x", "q"),
    ];
    let accepted = [
        ("zz: $N", "zz=12"),
        ("zz: $S", "zz=\"abc\""),
        ("zz: $Q", "zz=\"a b\""),
        ("zz: $SIZE", "zz=10000"),
        ("zz: $TWO", "zz=12"),
        ("zz: $LIST", "zz=[\"a\"]"),
        ("zz: $EMPTY", "zz=\"\""),
        ("zz: $HASH", "zz=\"$2a$11$abc\""),
        ("zz: $V.w-x", "zz=\"q\""),
        ("zz: [$N, $S]", "zz=[12 \"abc\"]"),
        ("x: 1\nzz { y: $x }", "x=1 zz={y=1}"),
        ("x: 1\nzz { x: 2, y { z: $x } }\na: $x", "x=1 zz={x=2 y={z=2}} a=1"),
        ("x: {a: 1}\nzz: $x", "x={a=1} zz={a=1}"),
        ("x: a\nx: b\nzz: $x", "x=\"b\" zz=\"b\""),
        ("N: 1\nzz: $N", "N=1 zz=1"),
    ];
    for (text, tree) in accepted {
        let entries = parse_with(text, &env, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(show_all(&entries), tree, "{text}");
    }
    let unknown =
        |name: &str| format!("c.conf:1:5: variable reference for '{name}' on line 1 can not be found");
    let refused = [
        ("zz: $x", unknown("x")),
        ("zz: $", unknown("")),
        ("zz: $x\nx: 1", unknown("x")),
        ("zz: $zz", unknown("zz")),
        ("zz { x: 1 }\ny: $x", "c.conf:2:4: variable reference for 'x' on line 2 can not be found".into()),
        (
            "zz: $LINES",
            "c.conf:1:5: variable reference for 'LINES' on line 1 could not be parsed: it is not one value"
                .into(),
        ),
    ];
    for (text, message) in refused {
        assert_eq!(parse_with(text, &env, &[]).unwrap_err().to_string(), message, "{text}");
    }
    let cycle = parse_with("zz: $LOOP", &env, &[]).unwrap_err().to_string();
    assert!(cycle.ends_with("variable reference cycle for 'LOOP'"), "{cycle}");
    let words = parse_with("zz: $WORDS", &env, &[]).unwrap_err().to_string();
    assert!(words.contains("Parse error on line 1"), "{words}");
}

#[test]
fn used_variables_are_marked() {
    let entries = parse_with("x: 1\ny: 2\nzz { a: $x }", &[], &[]).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.used).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn variables_cannot_multiply_without_end() {
    let mut text = "a0: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n".to_owned();
    for i in 0..12 {
        let copies = vec![format!("$a{i}"); 10].join(", ");
        text += &format!("a{}: [{copies}]\n", i + 1);
    }
    assert_eq!(parse_with(&text, &[], &[]).unwrap_err().problem, Problem::TooLarge);
}

#[test]
fn includes() {
    let files = [
        ("inc.conf", "zz: 1\nyy: 2"),
        ("sub/a.conf", "include \"b.conf\"\nqq: 1"),
        ("sub/b.conf", "ww: $x"),
        ("self.conf", "include self.conf"),
        ("loop1.conf", "include loop2.conf"),
        ("loop2.conf", "include loop1.conf"),
        ("bad.conf", "\na: ["),
        ("empty.conf", ""),
        ("j.json", "{\"zz\": 1}"),
        ("/abs.conf", "zz: 1"),
    ];
    let env = [("x", "env")];
    let accepted = [
        ("include inc.conf", "zz=1 yy=2"),
        ("include ./inc.conf\nyy: 3", "zz=1 yy=3"),
        ("include 'inc.conf'; port: 1", "zz=1 yy=2 port=1"),
        ("a { include inc.conf }", "a={zz=1 yy=2}"),
        ("a {\n include \"inc.conf\"\n b 1 }", "a={zz=1 yy=2 b=1}"),
        ("x: outer\ninclude sub/a.conf", "x=\"outer\" ww=\"env\" qq=1"),
        ("include inc.conf\nport: $yy", "zz=1 yy=2 port=2"),
        ("INCLUDE j.json # c", "zz=1"),
        ("include empty.conf", ""),
        ("include /abs.conf", "zz=1"),
    ];
    let mut files: Vec<(&str, &str)> = files.to_vec();
    files.push(("./inc.conf", "zz: 1\nyy: 2"));
    for (text, tree) in accepted {
        let entries = parse_with(text, &env, &files).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(show_all(&entries), tree, "{text}");
    }
    let refused = [
        (
            "include nope.conf",
            "c.conf:1:9: error parsing include file 'nope.conf', open nope.conf: no such file or directory",
        ),
        ("include self.conf", "self.conf:1:9: error parsing include file 'self.conf', it includes itself"),
        ("include loop1.conf", "loop2.conf:1:9: error parsing include file 'loop1.conf', it includes itself"),
        ("include bad.conf", "bad.conf:2:5: Parse error on line 2: 'Unexpected EOF processing array.'"),
        (
            "include inc.conf port: 1",
            "c.conf:1:18: Parse error on line 1: 'Expected a top-level value to end with a new line, comment or EOF, but got 'p' instead.'",
        ),
    ];
    for (text, message) in refused {
        assert_eq!(parse_with(text, &env, &files).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn includes_are_limited_even_under_ever_new_names() {
    let mut read = |_: &Path| Ok("include x/y.conf".to_owned());
    let error =
        parse_text(Path::new("c.conf"), "include y.conf", &mut Source { env: &|_| None, read: &mut read });
    assert_eq!(error.unwrap_err().problem, Problem::TooDeep { what: "include files" });
}

proptest! {
    #[test]
    fn no_text_panics_and_every_error_has_a_place(
        text in "([a-z0-9 .:=,;\n\t\r\"'\\\\(){}\\[\\]#/$-]|include |\u{e9}|\0|\n\\)|\\$2a\\$|users|\\\\x4){0,60}",
        env in "[a-z0-9$ {}\\[\\]\"]{0,8}",
    ) {
        let mut read = |path: &Path| match path.as_os_str().len() % 2 {
            0 => Ok(text.chars().rev().collect()),
            _ => Err("no".to_owned()),
        };
        let lookup = |name: &str| (name.len() % 2 == 1).then(|| env.clone());
        let source = &mut Source { env: &lookup, read: &mut read };
        if let Err(error) = parse_text(Path::new("c.conf"), &text, source) {
            let at = error.at.expect("every error of the grammar has a place");
            prop_assert!(at.line >= 1 && at.column >= 1);
            if &*at.file == "c.conf" {
                prop_assert!(at.line as usize <= text.matches('\n').count() + 1, "{at}");
            }
        }
    }
}
