//! The tokens of a transform's destination: text, wildcards and functions.

use hw_kit::Rng;

use super::TransformError;

/// One token of the destination, ready to be written.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Text(Box<[u8]>),
    /// Something made of one token of the subject, named by its index there.
    Token {
        at: usize,
        cut: Cut,
    },
    /// The hash of some tokens, or of the whole subject, modulo a number of partitions; 0 partitions give 0.
    Partition {
        partitions: u32,
        of: Option<Box<[usize]>>,
    },
    /// A number below this; 0 gives 0.
    Random(u64),
}

/// What is made of a token. Numbers count bytes; 0 leaves the token whole.
#[derive(Clone, Debug)]
pub(super) enum Cut {
    Whole,
    Split(Box<[u8]>),
    SplitFromLeft(usize),
    SplitFromRight(usize),
    SliceFromLeft(usize),
    SliceFromRight(usize),
    Left(usize),
    Right(usize),
}

/// The wildcards of a transform's source, as the destination asks for them.
#[derive(Debug)]
pub(super) struct Source {
    /// Where the `*` tokens stand.
    pub(super) stars: Vec<usize>,
    /// Whether there is neither a `*` nor a `>`.
    pub(super) literal: bool,
}

/// A function of the destination with its arguments.
struct Call<'a> {
    token: &'a [u8],
    args: Vec<&'a [u8]>,
    source: &'a Source,
}

/// What reads a function's arguments.
type Reader = for<'a, 'b> fn(&'a Call<'b>) -> Result<Step, TransformError>;

/// Refuses tokens that stand in no destination, whatever the source: an empty one, one with whitespace outside a
/// function, an unknown function.
pub(super) fn check_token(token: &[u8]) -> Result<(), TransformError> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0c);
    if is_function(token) {
        let unknown = || TransformError::UnknownFunction { token: text(token) };
        return take_apart(token).map(|_| ()).ok_or_else(unknown);
    }
    if token.is_empty() || token.iter().any(blank) {
        return Err(TransformError::Destination { after_tail: None });
    }
    Ok(())
}

/// Whether the token is in double braces, with something between them.
fn is_function(token: &[u8]) -> bool {
    token.len() > 4 && token.starts_with(b"{{") && token.ends_with(b"}}")
}

/// A known function's reader, and what stands between its parentheses.
///
/// Text before the last `{{` and behind the `}}` that closes the call is passed over: NATS looks for the call anywhere.
fn take_apart(token: &[u8]) -> Option<(Reader, &[u8])> {
    (0..token.len()).filter(|&at| token[at..].starts_with(b"{{")).find_map(|at| {
        let call = token[at + 2..].trim_ascii_start();
        let open = call.iter().position(|&byte| byte == b'(')?;
        let name = call[..open].trim_ascii_end();
        let &(_, reader) = FUNCTIONS.iter().find(|(known, _)| is_named(name, known))?;
        let args = &call[open + 1..];
        let line = memchr::memchr(b'\n', args).unwrap_or(args.len());
        let closes = |&at: &usize| args[at + 1..].trim_ascii_start().starts_with(b"}}");
        let close = memchr::memrchr_iter(b')', &args[..line]).find(closes)?;
        Some((reader, &args[..close]))
    })
}

impl Step {
    /// Reads a token that [`check_token`] let through.
    pub(super) fn parse(token: &[u8], source: &Source) -> Result<Step, TransformError> {
        if let Some(index) = token.strip_prefix(b"$").and_then(number) {
            let at = Call { token, args: Vec::new(), source }.position(index)?;
            return Ok(Step::Token { at, cut: Cut::Whole });
        }
        if !is_function(token) {
            return Ok(Step::Text(token.into()));
        }
        let (reader, args) =
            take_apart(token).ok_or_else(|| TransformError::UnknownFunction { token: text(token) })?;
        let args = args.split(|&byte| byte == b',').collect();
        reader(&Call { token, args, source })
    }

    /// Appends what this token becomes for a subject.
    pub(super) fn write(&self, subject: &[u8], tokens: &[&[u8]], rng: &mut Rng, out: &mut Vec<u8>) {
        match self {
            Step::Text(text) => out.extend_from_slice(text),
            Step::Token { at, cut } => cut.write(tokens[*at], out),
            Step::Partition { partitions, of } => {
                let hash = match of {
                    Some(of) => of.iter().fold(FNV_OFFSET, |hash, &at| fnv1a(hash, tokens[at])),
                    None => fnv1a(FNV_OFFSET, subject),
                };
                write_number(hash.checked_rem(*partitions).unwrap_or(0).into(), out);
            }
            Step::Random(bound) => write_number(rng.below(*bound), out),
        }
    }
}

/// The functions by name, and what reads their arguments. An upper-case letter may be written in lower case as well.
const FUNCTIONS: &[(&str, Reader)] = &[
    ("Wildcard", |call| {
        call.want(1)?;
        call.cut(Cut::Whole)
    }),
    ("Partition", |call| call.partition()),
    ("Split", |call| call.split()),
    ("SplitFromLeft", |call| call.sized(Cut::SplitFromLeft)),
    ("SplitFromRight", |call| call.sized(Cut::SplitFromRight)),
    ("SliceFromLeft", |call| call.sized(Cut::SliceFromLeft)),
    ("SliceFromRight", |call| call.sized(Cut::SliceFromRight)),
    ("Left", |call| call.sized(Cut::Left)),
    ("Right", |call| call.sized(Cut::Right)),
    ("Random", |call| call.random()),
];

impl Call<'_> {
    /// Exactly so many arguments.
    fn want(&self, count: usize) -> Result<(), TransformError> {
        // Nothing between the parentheses reads as one argument that is empty.
        if self.args.len() < count || self.args == [b""] {
            return Err(TransformError::NotEnoughArguments { token: text(self.token) });
        }
        if self.args.len() > count {
            return Err(TransformError::TooManyArguments { token: text(self.token) });
        }
        Ok(())
    }

    /// An argument as a number.
    fn number(&self, arg: usize) -> Result<i64, TransformError> {
        number(self.args[arg].trim_ascii()).ok_or_else(|| self.bad_argument())
    }

    /// An argument as a number that is not above 32 bits.
    fn count(&self, arg: usize) -> Result<i64, TransformError> {
        let count = self.number(arg)?;
        if count > i64::from(i32::MAX) { Err(self.bad_argument()) } else { Ok(count) }
    }

    /// Which token of the subject the wildcard `index` stands for. Below 1 it is the first token.
    fn position(&self, index: i64) -> Result<usize, TransformError> {
        let Source { stars, literal } = self.source;
        if index < 1 && !literal {
            return Ok(0);
        }
        let star = usize::try_from(index - 1).ok().and_then(|star| stars.get(star));
        star.copied().ok_or_else(|| TransformError::IndexOutOfRange {
            token: text(self.token),
            index: (!literal).then_some(index),
        })
    }

    fn bad_argument(&self) -> TransformError {
        TransformError::BadArgument { token: text(self.token) }
    }

    fn cut(&self, cut: Cut) -> Result<Step, TransformError> {
        Ok(Step::Token { at: self.position(self.number(0)?)?, cut })
    }

    fn sized(&self, cut: fn(usize) -> Cut) -> Result<Step, TransformError> {
        self.want(2)?;
        let size = usize::try_from(self.count(1)?).unwrap_or(0);
        self.cut(cut(size))
    }

    fn split(&self) -> Result<Step, TransformError> {
        self.want(2)?;
        // Space before it belongs to the comma, space behind it does not.
        let delimiter = self.args[1].trim_ascii_start();
        if delimiter.iter().any(|&byte| byte == b' ' || byte == b'.') {
            return Err(self.bad_argument());
        }
        self.cut(Cut::Split(delimiter.into()))
    }

    fn partition(&self) -> Result<Step, TransformError> {
        // A negative number of partitions wraps: NATS keeps it in 32 bits without a sign.
        let partitions = self.count(0)? as u32;
        let indexes: Vec<i64> = (1..self.args.len()).map(|arg| self.number(arg)).collect::<Result<_, _>>()?;
        // For a literal source NATS does not look at the indexes, and hashes the whole subject.
        if indexes.is_empty() || self.source.literal {
            return Ok(Step::Partition { partitions, of: None });
        }
        let of = indexes.into_iter().map(|index| self.position(index)).collect::<Result<_, _>>()?;
        Ok(Step::Partition { partitions, of: Some(of) })
    }

    fn random(&self) -> Result<Step, TransformError> {
        if self.args.len() > 1 {
            // NATS calls it so, and its clients' users know the text.
            return Err(TransformError::NotEnoughArguments { token: text(self.token) });
        }
        Ok(Step::Random(u64::try_from(self.count(0)?).unwrap_or(0)))
    }
}

impl Cut {
    fn write(&self, token: &[u8], out: &mut Vec<u8>) {
        let len = token.len();
        match *self {
            Cut::Split(ref delimiter) if delimiter.is_empty() => join(characters(token), out),
            Cut::Split(ref delimiter) => join(split(token, delimiter), out),
            Cut::SplitFromLeft(at) if 0 < at && at < len => join([&token[..at], &token[at..]], out),
            Cut::SplitFromRight(at) if 0 < at && at < len => {
                join([&token[..len - at], &token[len - at..]], out);
            }
            Cut::SliceFromLeft(size) if size > 0 => join(token.chunks(size), out),
            Cut::SliceFromRight(size) if 0 < size && size < len => {
                let (first, rest) = token.split_at(len % size);
                join(std::iter::once(first).chain(rest.chunks(size)), out);
            }
            Cut::Left(size) if 0 < size && size < len => out.extend_from_slice(&token[..size]),
            Cut::Right(size) if 0 < size && size < len => out.extend_from_slice(&token[len - size..]),
            _ => out.extend_from_slice(token),
        }
    }
}

/// Appends the parts that are not empty with dots between them.
///
/// nats-server leaves a dot where a token starts with two delimiters or more, which makes the subject invalid. Nobody
/// can rely on what nobody can subscribe to, so here there is none.
fn join<'a>(parts: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    for (index, part) in parts.into_iter().filter(|part| !part.is_empty()).enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(part);
    }
}

/// What lies between the delimiters.
fn split<'a>(token: &'a [u8], delimiter: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(token);
    std::iter::from_fn(move || {
        let from = rest?;
        let Some(at) = memchr::memmem::find(from, delimiter) else { return rest.take() };
        rest = Some(&from[at + delimiter.len()..]);
        Some(&from[..at])
    })
}

/// The characters of UTF-8, and each byte that belongs to none.
fn characters(token: &[u8]) -> impl Iterator<Item = &[u8]> {
    token.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid();
        let ends = valid.char_indices().map(move |(at, c)| &valid.as_bytes()[at..at + c.len_utf8()]);
        ends.chain(chunk.invalid().chunks(1))
    })
}

/// A decimal number with an optional sign. Too many digits are no number.
fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// Whether a name is the known one; where the known one has an upper-case letter, both cases will do.
fn is_named(name: &[u8], known: &str) -> bool {
    name.len() == known.len()
        && name.iter().zip(known.bytes()).all(|(&got, want)| got == want || got == want.to_ascii_lowercase())
}

fn text(token: &[u8]) -> String {
    String::from_utf8_lossy(token).into_owned()
}

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// FNV-1a over 32 bits. Applications rely on which partition a subject falls into: this may never change.
fn fnv1a(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME))
}
