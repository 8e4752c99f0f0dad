//! The mesh and what is written on its sockets: by whoever holds the lock.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hw_route::{Action, Mesh, MeshConfig, SocketId};
use tokio::sync::Notify;

use super::Links;
use crate::limits::{LINK_AT_ONCE_BYTES, SPARE_BYTES_MAX};
use crate::steady_now;

/// The mesh with its sockets.
pub(super) struct Traffic {
    pub(super) mesh: Mesh,
    writers: HashMap<SocketId, Writer>,
    /// What the mesh wants done by the links' thread.
    actions: Vec<Action>,
    scratch: Vec<u8>,
}

/// A socket's writing side. What its task has in hand, or is to take, leaves before anything else.
struct Writer {
    /// A second handle of the socket, if what is written goes out as it is.
    plain: Option<TcpStream>,
    /// Says to the task that there is something to write.
    wake: Arc<Notify>,
    is_busy: bool,
    rest: Vec<u8>,
    is_closing: bool,
}

/// What a socket's task does next.
pub(super) enum Turn {
    /// Write that, within the time of last words or not.
    Write(Vec<u8>, bool),
    /// Wait for more.
    Wait,
    /// Nothing comes any more.
    End,
}

impl Traffic {
    pub(super) fn new(mesh: MeshConfig) -> Traffic {
        Traffic {
            mesh: Mesh::new(steady_now(), mesh),
            writers: HashMap::new(),
            actions: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Hands the frames that wait to the mesh, and writes what can be written. False: there is more to do.
    pub(super) fn send(&mut self, links: &Links) -> bool {
        let now = steady_now();
        for (link, channel, body) in links.take_frames() {
            self.mesh.handle_send(now, link, channel, body);
        }
        self.write();
        links.waiting.store(self.mesh.pressure(), Ordering::Relaxed);
        self.actions.is_empty()
    }

    /// What is left to be done once everything was written that can be.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        self.write();
        std::mem::take(&mut self.actions)
    }

    /// A socket is there. What was said before is written now.
    pub(super) fn open(&mut self, socket: SocketId, plain: Option<TcpStream>) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        wake.notify_one();
        let writer =
            Writer { plain, wake: wake.clone(), is_busy: false, rest: Vec::new(), is_closing: false };
        self.writers.insert(socket, writer);
        wake
    }

    /// A socket is gone.
    pub(super) fn close(&mut self, socket: SocketId) {
        self.writers.remove(&socket);
        self.mesh.handle_closed(steady_now(), socket);
    }

    /// No more is said on a socket than what waits.
    pub(super) fn end(&mut self, socket: SocketId) {
        if let Some(writer) = self.writers.get_mut(&socket) {
            writer.is_closing = true;
            writer.wake.notify_one();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.writers.is_empty()
    }

    /// What a socket's task does next; `spare` is a buffer for it.
    pub(super) fn turn(&mut self, socket: SocketId, mut spare: Vec<u8>) -> Turn {
        let Some(writer) = self.writers.get_mut(&socket) else { return Turn::End };
        spare.clear();
        spare.append(&mut writer.rest);
        if spare.is_empty() {
            self.mesh.take_output(steady_now(), socket, &mut spare);
        }
        writer.is_busy = !spare.is_empty();
        match (writer.is_busy, writer.is_closing) {
            (true, is_closing) => Turn::Write(spare, is_closing),
            (false, false) => Turn::Wait,
            (false, true) => Turn::End,
        }
    }

    fn write(&mut self) {
        for action in self.mesh.take_actions() {
            match action {
                Action::Write(socket) => self.write_on(socket),
                other => self.actions.push(other),
            }
        }
    }

    fn write_on(&mut self, socket: SocketId) {
        let Some(writer) = self.writers.get_mut(&socket) else { return };
        let plain = writer.plain.as_mut().filter(|_| !writer.is_busy && writer.rest.is_empty());
        let Some(plain) = plain else { return writer.wake.notify_one() };
        let mut bytes = std::mem::take(&mut self.scratch);
        loop {
            bytes.clear();
            self.mesh.take_output(steady_now(), socket, &mut bytes);
            if bytes.is_empty() {
                break;
            }
            let written = match plain.write(&bytes) {
                Ok(written) => written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                // Who reads sees the same, and closes.
                Err(_) => bytes.len(),
            };
            writer.rest.extend_from_slice(&bytes[written..]);
            // Much is written by the task, which leaves the lock to others.
            if written < bytes.len() || bytes.len() > LINK_AT_ONCE_BYTES {
                writer.wake.notify_one();
                break;
            }
        }
        if bytes.capacity() <= SPARE_BYTES_MAX {
            self.scratch = bytes;
        }
    }
}
