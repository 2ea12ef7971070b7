//! Sockets for the HTTP client that wait as long as something moves, and give up at once when the call is.
//!
//! The client's own time-outs are for a whole body, and would resolve names on a thread that outlives the call.

use super::patience::Patience;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

pub struct PatientConnector(pub Arc<Patience>);

impl Connector for PatientConnector {
    type Out = PatientTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<PatientTransport>, Error> {
        let stream = self.0.connect(&details.addrs)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(PatientTransport { stream, buffers, patience: self.0.clone() }))
    }
}

impl std::fmt::Debug for PatientConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PatientConnector")
    }
}

pub struct PatientTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    patience: Arc<Patience>,
}

impl Transport for PatientTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let mut rest = &self.buffers.output()[..amount];
        let mut since = Instant::now();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => (rest, since) = (&rest[written..], Instant::now()),
                Err(error) if is_tick(&error) => self.patience.check(since)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let since = Instant::now();
        // What comes without a pause is given up as well.
        self.patience.check(since)?;
        loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if is_tick(&error) => self.patience.check(since)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        let quiet = |stream: &TcpStream| -> io::Result<bool> {
            stream.set_nonblocking(true)?;
            let peeked = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            Ok(peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
        };
        quiet(&self.stream).unwrap_or(false)
    }
}

impl std::fmt::Debug for PatientTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PatientTransport")
    }
}

/// Nothing has moved for the time of a tick.
fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
