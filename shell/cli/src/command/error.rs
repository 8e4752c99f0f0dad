//! Why a command failed: one line for standard error, and an exit code.

use std::path::PathBuf;

/// A command's failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server refused; `err_code` is JetStream's own number, zero if the server gave none.
    #[error("could not {doing}: {}", api_text(description, *code, *err_code))]
    Api { doing: String, description: String, code: u64, err_code: u64 },
    /// The server did not answer, or what it answered is of no use.
    #[error("could not {doing}: {reason}")]
    Request { doing: String, reason: String },
    #[error("could not connect to {url}: {reason}")]
    Connect { url: String, reason: String },
    #[error("could not {doing} {}: {reason}", path.display())]
    File { doing: &'static str, path: PathBuf, reason: String },
    /// The command line asks for something that cannot be done.
    #[error("{0}")]
    Usage(String),
    #[error("stdin is not a terminal, so {action} cannot be confirmed: use -f or --force")]
    Unconfirmed { action: String },
    #[error("{action} was not confirmed, nothing was changed")]
    Declined { action: String },
    /// Everything worth saying was already said.
    #[error("")]
    Silent(u8),
}

impl Failure {
    /// Something that the client library could not do.
    pub fn request(doing: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Request { doing: doing.into(), reason: reason.to_string() }
    }

    /// A file that could not be used; `doing` is a verb such as `read`.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::File { doing, path: path.into(), reason: reason.to_string() }
    }

    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Silent(code) => *code,
            _ => 1,
        }
    }
}

fn api_text(description: &str, code: u64, err_code: u64) -> String {
    match err_code {
        0 => format!("{description} ({code})"),
        err_code => format!("{description} ({err_code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_the_code() {
        let api = |err_code| Failure::Api {
            doing: "get stream x".into(),
            description: "stream not found".into(),
            code: 404,
            err_code,
        };
        assert_eq!(api(10059).to_string(), "could not get stream x: stream not found (10059)");
        assert_eq!(api(0).to_string(), "could not get stream x: stream not found (404)");
        assert_eq!(api(10059).exit_code(), 1);
        assert_eq!(Failure::Silent(2).exit_code(), 2);
    }
}
