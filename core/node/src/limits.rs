//! The limits of this crate, side by side.

/// Interest below this prefix belongs to JetStream.
pub(crate) const API_PREFIX: &str = "$JS.API.";

/// Reading from clients pauses while this many bytes wait for the disk.
pub(crate) const UNSYNCED_BYTES_MAX: usize = 64 * 1024 * 1024;
