//! A connection while it is set up: blocking reads and writes with a time limit, for the codecs of core.

use super::NetError;
use super::error::phase_of;
use dair_core::wire::{Part, ReadError, dllama};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Fields are small: they are gathered into blocks of this size, both ways.
const BLOCK_BYTES: usize = 64 << 10;
/// A host that has vanished is noticed this long after the last word: `KEEPALIVE_IDLE` and three unanswered probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A blocking stream to one peer.
#[derive(Debug)]
pub(super) struct Conn {
    stream: TcpStream,
    peer: String,
    /// For the next byte.
    progress: Duration,
    /// For everything until it is lifted.
    deadline: Option<(Instant, Duration)>,
    input: Vec<u8>,
    /// Where the unread part of `input` starts.
    input_at: usize,
    output: Vec<u8>,
    sent: u64,
    received: u64,
}

impl Conn {
    /// Takes over a connected stream; `peer` is how messages call the other side.
    pub(super) fn new(stream: TcpStream, peer: String, progress: Duration) -> Result<Self, NetError> {
        let set_up = || {
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(progress))?;
            stream.set_read_timeout(Some(progress))?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
            #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "windows"))]
            let keepalive = keepalive.with_retries(3);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)
        };
        set_up().map_err(NetError::System)?;
        let (input, output) = (Vec::new(), Vec::with_capacity(BLOCK_BYTES));
        Ok(Self { stream, peer, progress, deadline: None, input, input_at: 0, output, sent: 0, received: 0 })
    }

    /// How messages call the other side.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// From now on everything must be over after `limit`.
    pub(super) fn limit(&mut self, limit: Duration) {
        self.deadline = Some((Instant::now() + limit, limit));
    }

    /// Every byte has the progress timeout again.
    pub(super) fn lift_limit(&mut self) -> Result<(), NetError> {
        self.deadline = None;
        self.stream.set_read_timeout(Some(self.progress)).map_err(NetError::System)
    }

    /// Runs a codec that reads.
    pub(super) fn read_with<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, ReadError<io::Error>>,
    ) -> Result<T, NetError> {
        let timeout = self.deadline.map_or(self.progress, |(_, limit)| limit);
        read(self).map_err(|error| NetError::read(&self.peer, timeout, error))
    }

    /// Runs a codec that writes a part of the conversation, and sends what it wrote.
    pub(super) fn write_with(
        &mut self,
        part: Part,
        write: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Result<(), NetError> {
        let result = write(self).and_then(|()| self.send());
        result.map_err(|error| NetError::io(&self.peer, phase_of(part), Some(self.progress), error))
    }

    /// Reads the ACK that ends `part`.
    pub(super) fn expect_ack(&mut self, part: Part) -> Result<(), NetError> {
        self.read_with(|conn| dllama::read_ack(conn, part))
    }

    /// Sends the ACK that ends `part`.
    pub(super) fn send_ack(&mut self, part: Part) -> Result<(), NetError> {
        self.write_with(part, dllama::write_ack)
    }

    /// The stream, bytes that were received but not read, bytes sent and received.
    pub(super) fn into_parts(mut self) -> (TcpStream, String, Vec<u8>, [u64; 2]) {
        self.input.drain(..self.input_at);
        (self.stream, self.peer, self.input, [self.sent, self.received])
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.sent += self.output.len() as u64;
        self.output.clear();
        Ok(())
    }

    /// One read from the socket.
    fn receive(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some((deadline, _)) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left.min(self.progress)))?;
        }
        loop {
            match self.stream.read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.received += *result.as_ref().unwrap_or(&0) as u64;
                    return result;
                }
            }
        }
    }

    /// Reads what is there into the block, which is empty.
    fn refill(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.input);
        block.resize(BLOCK_BYTES, 0);
        let result = self.receive(&mut block);
        block.truncate(*result.as_ref().unwrap_or(&0));
        (self.input, self.input_at) = (block, 0);
        result.map(|_| ())
    }
}

impl embedded_io::ErrorType for Conn {
    type Error = io::Error;
}

impl embedded_io::Read for Conn {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.input_at == self.input.len() {
            if out.len() >= BLOCK_BYTES {
                return self.receive(out);
            }
            self.refill()?;
        }
        let block = &self.input[self.input_at..];
        let len = block.len().min(out.len());
        out[..len].copy_from_slice(&block[..len]);
        self.input_at += len;
        Ok(len)
    }
}

impl embedded_io::Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.output.len() + bytes.len() <= BLOCK_BYTES {
            self.output.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        self.send()?;
        // A large run of weights goes out as it is; what is left of it comes back here.
        let written = self.stream.write(bytes)?;
        self.sent += written as u64;
        if written == 0 && !bytes.is_empty() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
