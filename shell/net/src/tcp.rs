//! A plain TCP connection: one task reads; output is written straight from the round, and a second task exists only
//! while the peer's window is closed. An idle connection holds no buffer.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use hw_hub::CloseReason;
use hw_kit::ConnId;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::Driver;
use crate::driver::{Line as AnyLine, State};
use crate::limits::READ_BYTES;

/// A connection's writing side.
pub(crate) struct Line {
    pub(crate) socket: Rc<TcpStream>,
    /// What the socket did not take yet, from `written` on.
    rest: Vec<u8>,
    written: usize,
}

impl Line {
    pub(crate) fn new(socket: std::net::TcpStream) -> io::Result<Line> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Line { socket: Rc::new(TcpStream::from_std(socket)?), rest: Vec::new(), written: 0 })
    }

    fn is_blocked(&self) -> bool {
        self.written < self.rest.len()
    }
}

/// Reads until the connection ends.
pub(crate) async fn read(driver: Rc<Driver>, conn: ConnId, socket: Rc<TcpStream>) {
    // Holds an incomplete operation; an idle connection holds nothing.
    let mut kept: Vec<u8> = Vec::new();
    let reason = loop {
        driver.may_read().await;
        if socket.readable().await.is_err() {
            break CloseReason::ReadError;
        }
        driver.unstalled(conn).await;
        match read_once(&driver, conn, &socket, &mut kept) {
            Ok(0) => break CloseReason::ClientClosed,
            Ok(count) => {
                driver.end_round();
                // The others' turn, and that of what this read caused: a busy publisher must not keep the shard.
                if count >= READ_BYTES {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break CloseReason::ReadError,
        }
    };
    if reason == CloseReason::ClientClosed {
        // Who closes only its sending half still hears the answers.
        flush(&driver, &mut driver.state.borrow_mut(), conn);
    }
    driver.closed(conn, reason);
}

/// One read and what it brings. A connection without an incomplete operation reads into the shard's buffer.
fn read_once(driver: &Driver, conn: ConnId, socket: &TcpStream, kept: &mut Vec<u8>) -> io::Result<usize> {
    let mut state = driver.state.borrow_mut();
    let state = &mut *state;
    if kept.is_empty() {
        let mut scratch = std::mem::take(&mut state.scratch);
        scratch.clear();
        scratch.reserve(READ_BYTES);
        let read = read_some(socket, &mut scratch);
        if matches!(read, Ok(count) if count > 0) {
            let now = state.now();
            let consumed = state.shard.handle_bytes(now, conn, &scratch);
            kept.extend_from_slice(&scratch[consumed..]);
        }
        state.scratch = scratch;
        return read;
    }
    kept.reserve(READ_BYTES);
    let count = read_some(socket, kept)?;
    if count > 0 {
        let now = state.now();
        let consumed = state.shard.handle_bytes(now, conn, kept);
        let rest = kept.len() - consumed;
        kept.copy_within(consumed.., 0);
        kept.truncate(rest);
        if rest == 0 {
            *kept = Vec::new();
        }
    }
    Ok(count)
}

/// Reads what is there, as far as there is room. Where room is left nothing more is there, and a second call would only
/// hear so from the system: the next readiness is waited for at once. What comes meanwhile, or the end, raises it again.
fn read_some(socket: &TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let room = into.capacity() - into.len();
    let count = socket.try_read_buf(into)?;
    if cfg!(unix) && (1..room).contains(&count) {
        let _ = socket.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
    }
    Ok(count)
}

/// Writes what a connection has to say; starts the waiting task when the socket is full.
pub(crate) fn flush(driver: &Rc<Driver>, state: &mut State, conn: ConnId) {
    let Some(AnyLine::Tcp(line)) = state.lines.get(&conn) else { return };
    if line.is_blocked() {
        return; // The waiting task takes it when the socket has room again.
    }
    let socket = line.socket.clone();
    let output = state.take_output(conn);
    let written = match write_some(&socket, &output) {
        Ok(written) => written,
        Err(_) => output.len(), // The reading task sees the same error and closes.
    };
    state.shard.set_in_flight(conn, output.len() - written);
    if written < output.len() {
        if let Some(AnyLine::Tcp(line)) = state.lines.get_mut(&conn) {
            line.rest = output;
            line.written = written;
        }
        tokio::task::spawn_local(drain(driver.clone(), conn, socket));
        return;
    }
    state.keep(output);
    finish(state, conn, &socket);
}

/// Waits for room and writes the rest; ends when everything is out or the peer took nothing for the write deadline.
async fn drain(driver: Rc<Driver>, conn: ConnId, socket: Rc<TcpStream>) {
    let deadline = Duration::from_nanos(driver.config.write_deadline.0.max(1).unsigned_abs());
    loop {
        match tokio::time::timeout(deadline, socket.writable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                let _ = socket2::SockRef::from(&*socket).shutdown(std::net::Shutdown::Both);
                driver.closed(conn, CloseReason::SlowConsumerWriteDeadline);
                return;
            }
        }
        let mut state = driver.state.borrow_mut();
        let state = &mut *state;
        let Some(AnyLine::Tcp(line)) = state.lines.get_mut(&conn) else { return };
        match write_some(&socket, &line.rest[line.written..]) {
            Ok(written) => {
                line.written += written;
                state.shard.set_in_flight(conn, line.rest.len() - line.written);
                driver.end_round();
            }
            Err(_) => return,
        }
        let Some(AnyLine::Tcp(line)) = state.lines.get_mut(&conn) else { return };
        if line.is_blocked() {
            continue;
        }
        line.written = 0;
        let done = std::mem::take(&mut line.rest);
        state.keep(done);
        flush(&driver, state, conn);
        return;
    }
}

fn write_some(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.try_write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Shuts the socket once the last words are out; the reading task then ends the connection.
fn finish(state: &mut State, conn: ConnId, socket: &TcpStream) {
    if state.shard.closing(conn).is_some() {
        let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Both);
    } else if state.shard.is_leaving(conn) {
        // The client sees that, and closes: what it has sent until then is read.
        let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
    }
}
