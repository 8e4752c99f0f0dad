//! Why a connection ended: the names are those of `nats-server`, tools compare them.

use std::fmt;

/// Why a connection ended or must end.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloseReason {
    /// The client went.
    ClientClosed,
    /// No valid CONNECT in time.
    AuthenticationTimeout,
    /// Wrong credentials, or none.
    AuthenticationFailure,
    /// The credentials' time is over.
    AuthenticationExpired,
    /// The credentials were taken back.
    Revocation,
    /// The account is gone.
    MissingAccount,
    /// TLS could not be set up.
    TlsHandshakeError,
    /// More output waited than `max_pending`.
    SlowConsumerPendingBytes,
    /// Output waited longer than `write_deadline`.
    SlowConsumerWriteDeadline,
    /// The socket failed in writing.
    WriteError,
    /// The socket failed in reading.
    ReadError,
    /// The client reported an error.
    ParseError,
    /// Pings were not answered.
    StaleConnection,
    /// The bytes were no protocol.
    ProtocolViolation,
    /// CONNECT asked for a protocol that does not exist.
    BadClientProtocolVersion,
    /// This port is not for clients.
    WrongPort,
    /// The account has as many connections as it may.
    MaxAccountConnectionsExceeded,
    /// The server has as many connections as it may.
    MaxConnectionsExceeded,
    /// A message was larger than `max_payload`.
    MaxPayloadExceeded,
    /// Arguments were longer than `max_control_line`.
    MaxControlLineExceeded,
    /// CONNECT asked for `no_responders` without `headers`.
    NoRespondersRequiresHeaders,
    /// The server stops.
    ServerShutdown,
    /// An operator ended it.
    Kicked,
}

impl CloseReason {
    /// The name in `/connz` and in disconnect events.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::ClientClosed => "Client Closed",
            CloseReason::AuthenticationTimeout => "Authentication Timeout",
            CloseReason::AuthenticationFailure => "Authentication Failure",
            CloseReason::AuthenticationExpired => "Authentication Expired",
            CloseReason::Revocation => "Credentials Revoked",
            CloseReason::MissingAccount => "Missing Account",
            CloseReason::TlsHandshakeError => "TLS Handshake Failure",
            CloseReason::SlowConsumerPendingBytes => "Slow Consumer (Pending Bytes)",
            CloseReason::SlowConsumerWriteDeadline => "Slow Consumer (Write Deadline)",
            CloseReason::WriteError => "Write Error",
            CloseReason::ReadError => "Read Error",
            CloseReason::ParseError => "Parse Error",
            CloseReason::StaleConnection => "Stale Connection",
            CloseReason::ProtocolViolation => "Protocol Violation",
            CloseReason::BadClientProtocolVersion => "Bad Client Protocol Version",
            CloseReason::WrongPort => "Incorrect Port",
            CloseReason::MaxAccountConnectionsExceeded => "Maximum Account Connections Exceeded",
            CloseReason::MaxConnectionsExceeded => "Maximum Connections Exceeded",
            CloseReason::MaxPayloadExceeded => "Maximum Message Payload Exceeded",
            CloseReason::MaxControlLineExceeded => "Maximum Control Line Exceeded",
            CloseReason::NoRespondersRequiresHeaders => "No Responders Requires Headers",
            CloseReason::ServerShutdown => "Server Shutdown",
            CloseReason::Kicked => "Kicked",
        }
    }

    /// Whether waiting output should still be written before the socket closes.
    pub fn flushes(self) -> bool {
        !matches!(
            self,
            CloseReason::ClientClosed
                | CloseReason::SlowConsumerPendingBytes
                | CloseReason::SlowConsumerWriteDeadline
                | CloseReason::WriteError
                | CloseReason::ReadError
                | CloseReason::TlsHandshakeError
        )
    }

    /// What `-ERR` says before the close when the shell or an operator ends the connection; `None` is silence.
    pub(crate) fn err_text(self) -> Option<&'static str> {
        Some(match self {
            CloseReason::AuthenticationTimeout => "Authentication Timeout",
            CloseReason::AuthenticationFailure => "Authorization Violation",
            CloseReason::AuthenticationExpired => "User Authentication Expired",
            CloseReason::Revocation => "User Authentication Revoked",
            CloseReason::StaleConnection => "Stale Connection",
            CloseReason::BadClientProtocolVersion => "invalid client protocol",
            CloseReason::MaxAccountConnectionsExceeded => "maximum account active connections exceeded",
            CloseReason::MaxConnectionsExceeded => "maximum connections exceeded",
            CloseReason::NoRespondersRequiresHeaders => "no responders requires headers support",
            _ => return None,
        })
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
