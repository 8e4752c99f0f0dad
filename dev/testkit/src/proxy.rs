//! The way from servers to one server's cluster port, where connections can be stopped: bytes wait, as on a network that lost
//! its way, and nobody is told. Who dialled is read in the hello, so that one pair of servers can be parted.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::ports::Port;

const PAUSE: Duration = Duration::from_millis(5);

/// Ways on which nothing gets through: from one server to another, by name.
#[derive(Clone, Debug, Default)]
pub struct Parted {
    ways: Arc<Mutex<BTreeSet<(String, String)>>>,
    /// How often all connections were ended.
    cuts: Arc<AtomicUsize>,
}

impl Parted {
    /// Nothing gets from `from` to `to` any more.
    pub fn part(&self, from: &str, to: &str) {
        self.ways().insert((from.to_owned(), to.to_owned()));
    }

    /// Everything gets through again.
    pub fn heal(&self) {
        self.ways().clear();
    }

    /// All connections between servers end; what was on its way on one that is parted is lost. Everything gets through those
    /// that are made from now on.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.heal();
    }

    fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }

    fn are(&self, from: &str, to: &str) -> bool {
        self.ways().contains(&(from.to_owned(), to.to_owned()))
    }

    fn ways(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to one server.
pub struct Proxy {
    port: Port,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What one direction of a connection is.
struct Pipe {
    from: TcpStream,
    to: TcpStream,
    who: (String, String),
    parted: Parted,
    ends: Arc<AtomicBool>,
    /// How often connections were ended before this one.
    cuts: usize,
}

impl Proxy {
    /// A way to the server called `name`, whose cluster port is `target`; `names` are those who may dial.
    pub fn start(name: &str, target: u16, names: &[String], parted: &Parted) -> io::Result<Proxy> {
        let port = Port::take()?;
        let listener = TcpListener::bind(("127.0.0.1", port.number()))?;
        listener.set_nonblocking(true)?;
        let ends = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (name, names, parted, ends) = (name.to_owned(), names.to_vec(), parted.clone(), ends.clone());
            move || {
                while !ends.load(Ordering::Relaxed) {
                    let Ok((dialler, _)) = listener.accept() else {
                        std::thread::park_timeout(PAUSE);
                        continue;
                    };
                    let (name, names, parted, ends) =
                        (name.clone(), names.clone(), parted.clone(), ends.clone());
                    std::thread::spawn(move || drop(join(dialler, target, (&name, &names), (parted, ends))));
                }
            }
        });
        Ok(Proxy { port, ends, thread: Some(thread) })
    }

    /// Where to dial.
    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Joins who dialled with the server: its first bytes say who it is.
fn join(
    mut dialler: TcpStream,
    target: u16,
    (name, names): (&str, &[String]),
    (parted, ends): (Parted, Arc<AtomicBool>),
) -> io::Result<()> {
    dialler.set_nonblocking(false)?;
    dialler.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut hello = vec![0; 4096];
    let mut length = 0;
    let from = loop {
        let more = dialler.read(&mut hello[length..])?;
        length += more;
        let said = &hello[..length];
        let is_said = |name: &&String| said.windows(name.len()).any(|part| part == name.as_bytes());
        if let Some(from) = names.iter().filter(|other| *other != name).find(is_said) {
            break from.clone();
        }
        if more == 0 || length == hello.len() {
            return Ok(());
        }
    };
    while parted.are(&from, name) || parted.are(name, &from) {
        if ends.load(Ordering::Relaxed) {
            return Ok(());
        }
        std::thread::park_timeout(PAUSE);
    }
    let cuts = parted.cuts();
    let mut server = TcpStream::connect(("127.0.0.1", target))?;
    server.set_nodelay(true)?;
    dialler.set_nodelay(true)?;
    server.write_all(&hello[..length])?;
    let there = Pipe {
        from: dialler.try_clone()?,
        to: server.try_clone()?,
        who: (from.clone(), name.to_owned()),
        parted: parted.clone(),
        ends: ends.clone(),
        cuts,
    };
    let back = Pipe { from: server, to: dialler, who: (name.to_owned(), from), parted, ends, cuts };
    std::thread::spawn(move || there.run());
    back.run();
    Ok(())
}

impl Pipe {
    fn run(mut self) {
        // Both ends hear of it when one of them goes.
        let _ = self.pump();
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// Whether nothing gets through any more.
    fn is_over(&self) -> bool {
        self.ends.load(Ordering::Relaxed) || self.parted.cuts() != self.cuts
    }

    fn pump(&mut self) -> io::Result<()> {
        self.from.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let length = match self.from.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    0
                }
                Err(error) => return Err(error),
            };
            while length > 0 && self.parted.are(&self.who.0, &self.who.1) {
                if self.is_over() {
                    return Ok(());
                }
                std::thread::park_timeout(PAUSE);
            }
            if self.is_over() {
                return Ok(());
            }
            self.to.write_all(&bytes[..length])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_while_two_are_parted() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap().port();
        let (parted, names) = (Parted::default(), ["n1".to_owned(), "n2".to_owned()]);
        let proxy = Proxy::start("n2", target, &names, &parted).unwrap();
        let mut one = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        one.write_all(b"hello n1").unwrap();
        let (mut two, _) = server.accept().unwrap();
        let mut read = [0; 8];
        two.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello n1");
        parted.part("n1", "n2");
        one.write_all(b"later").unwrap();
        two.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(two.read(&mut read).is_err(), "nothing comes");
        two.write_all(b"back").unwrap();
        one.read_exact(&mut read[..4]).unwrap();
        assert_eq!(&read[..4], b"back", "the other way is open");
        parted.heal();
        two.set_read_timeout(None).unwrap();
        two.read_exact(&mut read[..5]).unwrap();
        assert_eq!(&read[..5], b"later");
    }
}
