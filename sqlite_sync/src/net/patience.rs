//! How long a link waits: until nothing has moved for a while, or until the call is given up.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a link that waits looks whether it shall go on.
pub const TICK: Duration = Duration::from_millis(50);
/// The longest wait for a connection: a server that does not answer to that is not there.
const CONNECT: Duration = Duration::from_secs(10);

pub struct Patience {
    given_up: AtomicBool,
    /// Without any progress.
    idle: Duration,
}

impl Patience {
    pub fn new(idle: Duration) -> Patience {
        Patience { given_up: AtomicBool::new(false), idle }
    }

    pub fn idle(&self) -> Duration {
        self.idle
    }

    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Shall what has made no progress since then be waited for? It is asked once per [`TICK`].
    pub fn check(&self, since: Instant) -> io::Result<()> {
        match self.is_given_up() || since.elapsed() >= self.idle {
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            false => Ok(()),
        }
    }

    /// A connection to the first address that takes one.
    pub fn connect(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(address, self.idle.min(CONNECT)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(TICK))?;
                    stream.set_write_timeout(Some(TICK))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
