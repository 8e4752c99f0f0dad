//! Ports that nobody else has: taken from below the range that the system gives to outgoing connections, and held by a
//! locked file for as long as they are needed, so that tests that run side by side, in any process, never share one.

use std::{
    fs::{File, TryLockError},
    io,
    net::TcpListener,
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below Linux' usual range for outgoing connections (32768 and up), above what services are usually given.
const RANGE: Range<u16> = 12_000..32_000;

/// How many were tried in this process: the next search goes on where the last one ended.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// The lock goes with the file.
    _lock: File,
}

impl Port {
    /// Takes one that is free.
    pub fn take() -> io::Result<Self> {
        let folder = std::env::temp_dir().join("headwater-test-ports");
        std::fs::create_dir_all(&folder)?;
        let span = u32::from(RANGE.end - RANGE.start);
        // Processes begin at different places, so that they seldom meet.
        let start = std::process::id().wrapping_mul(97) % span;
        for _ in 0..span {
            let offset = (start + TRIED.fetch_add(1, Ordering::Relaxed)) % span;
            let number = RANGE.start + u16::try_from(offset).map_err(io::Error::other)?;
            if let Some(port) = Self::lock(number, folder.join(number.to_string()))? {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// None if somebody else has it, by this lock or by listening.
    fn lock(number: u16, path: PathBuf) -> io::Result<Option<Self>> {
        let file = File::options().create(true).append(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let is_free = TcpListener::bind(("127.0.0.1", number)).is_ok();
        Ok(is_free.then_some(Self { number, _lock: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn held_ports_differ_and_a_taken_one_is_passed_over() {
        let ports: Vec<Port> = (0..50).map(|_| Port::take().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        let (held, path) = (ports[0].number(), std::env::temp_dir().join("headwater-test-ports"));
        let path = path.join(held.to_string());
        assert!(Port::lock(held, path.clone()).unwrap().is_none());
        let _listener = TcpListener::bind(("127.0.0.1", held)).unwrap();
        drop(ports);
        assert!(Port::lock(held, path).unwrap().is_none());
    }
}
