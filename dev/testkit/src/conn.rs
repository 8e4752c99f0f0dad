//! A blocking client connection that reads frames against a deadline.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::frame::{Frame, FrameError};

/// One TCP connection to a server, with the frames that came and were not taken yet.
pub struct Conn {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// Frames in the order of their arrival.
    pub queue: VecDeque<Frame>,
    /// Whether the other side has closed.
    pub closed: bool,
    trace: Option<String>,
}

/// Why no further frame came.
#[derive(Debug, thiserror::Error)]
pub enum ConnEnd {
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The deadline passed.
    #[error("nothing more came before the deadline")]
    Deadline,
    /// The server sent what is no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
}

impl Conn {
    /// Connects to a port of the loopback interface. With `trace`, all frames are printed under that name.
    pub fn open(port: u16, trace: Option<String>) -> Result<Self, ConnEnd> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: Vec::new(), queue: VecDeque::new(), closed: false, trace })
    }

    /// Sends bytes as they are. A connection that the server has closed already is no error here: what the
    /// server said before it closed is still to be read.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ConnEnd> {
        if let Some(name) = &self.trace {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
            for line in shown.trim_end().split("\r\n") {
                println!("{name}> {line}");
            }
        }
        match self.stream.write_all(bytes) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    /// Waits until one more frame is in the queue.
    pub fn fill(&mut self, deadline: Instant) -> Result<(), ConnEnd> {
        loop {
            if let Some((frame, len)) = Frame::cut(&self.bytes)? {
                self.bytes.drain(..len);
                if let Some(name) = &self.trace {
                    println!("{name}< {frame}");
                }
                self.queue.push_back(frame);
                return Ok(());
            }
            if self.closed {
                return Err(ConnEnd::Closed);
            }
            self.read_some(deadline)?;
        }
    }

    fn read_some(&mut self, deadline: Instant) -> Result<(), ConnEnd> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(ConnEnd::Deadline);
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(n) => self.bytes.extend_from_slice(&chunk[..n]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.closed = true,
                _ => return Err(error.into()),
            },
        }
        Ok(())
    }
}
