//! [`Transform`]: subject mapping, `src` to `dest`, as streams, sources, republishing and account mappings use it.

mod function;

use bytes::Bytes;
use hw_kit::Rng;

use crate::{Filter, token};
use function::{Cut, Source, Step};

/// A mapping from the subjects that a filter matches to other subjects.
///
/// The destination's tokens are text, `$n` or a function such as `{{wildcard(n)}}`; a final `>` takes over what the
/// source's `>` matched. Wildcards are counted from 1. Positions and sizes count bytes, not characters.
#[derive(Clone, Debug)]
pub struct Transform {
    src: Filter,
    dest: Bytes,
    /// Empty if the transform only filters.
    steps: Vec<Step>,
    /// Where the `>` of the source stands, as a token index, if the destination takes it over.
    tail: Option<usize>,
}

/// Why a mapping is refused. The texts are those that clients of NATS know.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TransformError {
    /// The source is no valid filter.
    #[error("invalid subject {src}")]
    Source {
        /// The source.
        src: String,
    },
    /// The destination has a `*`, or one side ends with `>` and the other does not.
    #[error("invalid subject")]
    Wildcards,
    /// The destination has an empty token, whitespace outside a function, or a token after a `>`.
    #[error("invalid mapping destination: invalid transform{}", after_tail.as_ref().map_or(String::new(), |token| format!(" in {token}")))]
    Destination {
        /// The token that stands after a `>`, if that is the fault.
        after_tail: Option<String>,
    },
    /// A token in double braces that is no function.
    #[error("invalid mapping destination: unknown function in {token}")]
    UnknownFunction {
        /// The destination's token.
        token: String,
    },
    /// A function lacks an argument.
    #[error("invalid mapping destination: not enough arguments passed to the function in {token}")]
    NotEnoughArguments {
        /// The destination's token.
        token: String,
    },
    /// A function has an argument that it does not take.
    #[error("invalid mapping destination: too many arguments passed to the function in {token}")]
    TooManyArguments {
        /// The destination's token.
        token: String,
    },
    /// An argument is no number, is too large, or is a delimiter with a space or a dot.
    #[error("invalid mapping destination: function argument is invalid or in the wrong format in {token}")]
    BadArgument {
        /// The destination's token.
        token: String,
    },
    /// The source has fewer wildcards than the destination asks for.
    #[error("invalid mapping destination: wildcard index out of range in {token}{}", index.map_or(String::new(), |index| format!(": [{index}]")))]
    IndexOutOfRange {
        /// The destination's token.
        token: String,
        /// The wildcard asked for; not told if the source has no wildcard at all.
        index: Option<i64>,
    },
}

impl Transform {
    /// An empty source means `>`. With an empty destination, subjects that match stay as they are.
    pub fn new(src: impl AsRef<[u8]>, dest: impl AsRef<[u8]>) -> Result<Transform, TransformError> {
        let (src, dest) = (src.as_ref(), dest.as_ref());
        let src = if src.is_empty() {
            Filter::ALL
        } else {
            Filter::parse(src)
                .map_err(|_| TransformError::Source { src: String::from_utf8_lossy(src).into_owned() })?
        };
        let dest_bytes = Bytes::copy_from_slice(dest);
        if dest.is_empty() {
            return Ok(Transform { src, dest: dest_bytes, steps: Vec::new(), tail: None });
        }
        // Three passes, so that of several faults the same one is told as by NATS.
        let dest_tail = check_destination(dest)?;
        let src_tokens: Vec<&[u8]> = src.tokens().collect();
        let tail = src_tokens.iter().position(|&token| token == b">");
        let texts = || token::tokens(dest).filter(|&token| token != b">");
        if dest_tail != tail.is_some() || texts().any(|token| token == b"*") {
            return Err(TransformError::Wildcards);
        }
        let stars = (0..src_tokens.len()).filter(|&at| src_tokens[at] == b"*").collect();
        let source = Source { stars, literal: src.is_literal() };
        let steps = texts().map(|token| Step::parse(token, &source)).collect::<Result<_, _>>()?;
        Ok(Transform { src, dest: dest_bytes, steps, tail })
    }

    /// The subjects that are mapped; `>` if none were named.
    pub fn src(&self) -> &Filter {
        &self.src
    }

    /// The destination as it was given.
    pub fn dest(&self) -> &Bytes {
        &self.dest
    }

    /// Whether subjects that match stay as they are.
    pub fn is_filter_only(&self) -> bool {
        self.dest.is_empty()
    }

    /// A filter that matches every valid subject that can come out.
    pub fn image(&self) -> Filter {
        if self.is_filter_only() {
            return self.src.clone();
        }
        let mut filter: Vec<&[u8]> = Vec::new();
        let mut open = self.tail.is_some();
        for step in &self.steps {
            match step {
                Step::Text(text) => filter.push(text),
                // It may become any number of tokens.
                Step::Token { cut, .. } if cut.parts() => {
                    open = true;
                    break;
                }
                _ => filter.push(b"*"),
            }
        }
        if open {
            filter.push(b">");
        }
        Filter::parse(filter.join(&b'.')).unwrap_or(Filter::ALL)
    }

    /// The mapped subject; `None` if the source does not match. `draw` is the randomness for `{{random(n)}}`.
    ///
    /// The result is not always a valid subject: `{{split(1,-)}}` makes nothing out of the token `-`, and leaves an
    /// empty token. NATS does the same; whoever stores or routes the result has to look.
    pub fn apply(&self, subject: &[u8], draw: u64) -> Option<Vec<u8>> {
        if !self.src.matches(subject) {
            return None;
        }
        if self.is_filter_only() {
            return Some(subject.to_vec());
        }
        let tokens: Vec<&[u8]> = token::tokens(subject).collect();
        let mut rng = Rng::new(draw);
        let mut out = Vec::with_capacity(subject.len() + self.dest.len());
        for (index, step) in self.steps.iter().enumerate() {
            if index > 0 {
                out.push(b'.');
            }
            step.write(subject, &tokens, &mut rng, &mut out);
        }
        for (index, token) in self.tail.map_or(&[][..], |at| &tokens[at..]).iter().enumerate() {
            if self.steps.len() + index > 0 {
                out.push(b'.');
            }
            out.extend_from_slice(token);
        }
        Some(out)
    }
}

/// Checks what can be told of a destination alone; says whether it ends with a `>`.
fn check_destination(dest: &[u8]) -> Result<bool, TransformError> {
    let mut tail = false;
    for token in token::tokens(dest) {
        if tail && !token.is_empty() {
            let after_tail = Some(String::from_utf8_lossy(token).into_owned());
            return Err(TransformError::Destination { after_tail });
        }
        function::check_token(token)?;
        tail = token == b">";
    }
    Ok(tail)
}

impl Cut {
    /// Whether it may make several tokens of one.
    fn parts(&self) -> bool {
        !matches!(self, Cut::Whole | Cut::Left(_) | Cut::Right(_))
    }
}

#[cfg(test)]
mod tests;
