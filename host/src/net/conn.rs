//! A connection while it is set up: blocking reads and writes with a time limit, for the codecs of core.

use super::NetError;
use super::channel::Channel;
use super::error::phase_of;
use super::patience::Patience;
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
    patience: Patience,
    input: Vec<u8>,
    /// Where the unread part of `input` starts.
    input_at: usize,
    output: Vec<u8>,
    /// What both blocks go through, once there was a handshake.
    channel: Option<Box<Channel>>,
    sent: u64,
    received: u64,
}

/// What is left of a connection once it is set up.
pub(super) struct Parts {
    pub(super) stream: TcpStream,
    pub(super) peer: String,
    /// Received, and not read so far.
    pub(super) ahead: Vec<u8>,
    pub(super) channel: Option<Box<Channel>>,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Conn {
    /// Takes over a connected stream; `peer` is how messages call the other side, `limit` is for the first phase.
    pub(super) fn new(stream: TcpStream, peer: String, limit: Duration) -> Result<Self, NetError> {
        let set_up = || {
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
            #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "windows"))]
            let keepalive = keepalive.with_retries(3);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)
        };
        set_up().map_err(NetError::System)?;
        let (input, output) = (Vec::new(), Vec::with_capacity(BLOCK_BYTES));
        let patience = Patience::new(limit, Instant::now());
        Ok(Self { stream, peer, patience, input, input_at: 0, output, channel: None, sent: 0, received: 0 })
    }

    /// How messages call the other side.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// The same connection, of which messages call the other side `peer` from now on.
    pub(super) fn called(self, peer: String) -> Self {
        Self { peer, ..self }
    }

    /// Another handle of the stream, by which it can be ended from elsewhere.
    pub(super) fn twin(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Starts a phase: what has been waited for so far does not count.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.patience = Patience::new(limit, Instant::now());
    }

    /// Runs a codec that reads.
    pub(super) fn read_with<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, ReadError<io::Error>>,
    ) -> Result<T, NetError> {
        read(self).map_err(|error| match error {
            ReadError::Io { part, error } => self.error(phase_of(part), error),
            ReadError::Closed(spot) => NetError::Closed { peer: self.peer.clone(), phase: phase_of(spot.part) },
            ReadError::Invalid(invalid) => NetError::Invalid { peer: self.peer.clone(), invalid: Box::new(invalid) },
        })
    }

    /// Runs a codec that writes a part of the conversation, and sends what it wrote.
    pub(super) fn write_with(
        &mut self,
        part: Part,
        write: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> Result<(), NetError> {
        let result = write(self).and_then(|()| self.send());
        result.map_err(|error| self.error(phase_of(part), error))
    }

    /// Reads the ACK that ends `part`.
    pub(super) fn expect_ack(&mut self, part: Part) -> Result<(), NetError> {
        self.read_with(|conn| dllama::read_ack(conn, part))
    }

    /// Sends the ACK that ends `part`.
    pub(super) fn send_ack(&mut self, part: Part) -> Result<(), NetError> {
        self.write_with(part, dllama::write_ack)
    }

    /// From now on everything is encrypted.
    pub(super) fn secure(&mut self, channel: Channel) {
        self.channel = Some(Box::new(channel));
    }

    /// Whether something was received that is not read yet.
    pub(super) fn has_input(&self) -> bool {
        self.input_at < self.input.len()
    }

    /// Ends the set-up.
    pub(super) fn into_parts(mut self) -> Parts {
        self.input.drain(..self.input_at);
        let Self { stream, peer, input: ahead, channel, sent, received, .. } = self;
        Parts { stream, peer, ahead, channel, sent, received }
    }

    /// What a failed call in a part of the conversation means.
    pub(super) fn failed(&self, part: Part, error: io::Error) -> NetError {
        self.error(phase_of(part), error)
    }

    /// Whether the first bytes that the peer sends are one of `words`: which one. They are read then, else they stay.
    pub(super) fn takes_word<const N: usize>(
        &mut self,
        words: &[[u8; N]],
        part: Part,
    ) -> Result<Option<usize>, NetError> {
        while self.input.len() - self.input_at < N {
            let rest = self.input.split_off(self.input_at);
            self.refill().map_err(|error| self.failed(part, error))?;
            if self.input.is_empty() {
                // It has closed: what is here is all there is.
                (self.input, self.input_at) = (rest, 0);
                return Ok(None);
            }
            self.input.splice(0..0, rest);
        }
        let word = words.iter().position(|word| self.input[self.input_at..].starts_with(word));
        self.input_at += if word.is_some() { N } else { 0 };
        Ok(word)
    }

    /// What was wrong with a call: the peer's time is up, or the system says.
    fn error(&self, phase: &'static str, error: io::Error) -> NetError {
        // What `left` says has no number of the system's; an error of that kind which has one means vain probes.
        if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() {
            return self.patience.error(&self.peer, phase, Instant::now());
        }
        NetError::io(&self.peer, phase, error)
    }

    /// How long the next call may take.
    fn left(&self) -> io::Result<Duration> {
        let left = self.patience.left(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// One write to the socket.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.stream.set_write_timeout(Some(self.left()?))?;
            match self.stream.write(bytes) {
                Err(error) if is_to_be_tried_again(&error) => {}
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.sent += written as u64;
                    self.patience.moved(written as u64, Instant::now());
                    return Ok(written);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.output);
        let mut rest = &block[..];
        match self.channel.take() {
            None => {
                while !rest.is_empty() {
                    rest = &rest[self.write_some(rest)?..];
                }
            }
            Some(mut channel) => {
                let mut result = Ok(1);
                while !(rest.is_empty() && channel.is_written()) && result.is_ok() {
                    rest = &rest[channel.put(rest)..];
                    channel.seal();
                    result = channel.write_with(|frames| self.write_some(frames));
                }
                self.channel = Some(channel);
                result?;
            }
        }
        self.output = block;
        self.output.clear();
        Ok(())
    }

    /// One read from the socket.
    fn receive(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(out) {
                Err(error) if is_to_be_tried_again(&error) => {}
                Ok(bytes) => {
                    self.received += bytes as u64;
                    self.patience.moved(bytes as u64, Instant::now());
                    return Ok(bytes);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what is there into the block, which is empty.
    fn refill(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.input);
        let result = match self.channel.take() {
            None => {
                block.resize(BLOCK_BYTES, 0);
                let result = self.receive(&mut block);
                block.truncate(*result.as_ref().unwrap_or(&0));
                result
            }
            Some(mut channel) => {
                block.clear();
                let mut result = Ok(1);
                // A part of a frame is nothing yet.
                while block.is_empty() && matches!(result, Ok(1..)) {
                    result = channel.read_with(|space| self.receive(space), &mut block);
                }
                self.channel = Some(channel);
                result
            }
        };
        (self.input, self.input_at) = (block, 0);
        result.map(|_| ())
    }
}

/// Whether a call ended for nothing, or because its time is over, which is for the clock to say.
fn is_to_be_tried_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

impl embedded_io::ErrorType for Conn {
    type Error = io::Error;
}

impl embedded_io::Read for Conn {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.input_at == self.input.len() {
            if out.len() >= BLOCK_BYTES && self.channel.is_none() {
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
        if self.channel.is_some() {
            let some = bytes.len().min(BLOCK_BYTES);
            self.output.extend_from_slice(&bytes[..some]);
            return Ok(some);
        }
        // A large run of weights goes out as it is; what is left of it comes back here.
        self.write_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel;
    use super::*;
    use embedded_io::Write as _;
    use std::net::{Shutdown, TcpListener};

    #[test]
    fn what_is_encrypted_stays_so_after_a_failed_write() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut conn = Conn::new(stream, "peer".into(), Duration::from_secs(1)).unwrap();
        let [channel, _other] = channel::pair();
        conn.secure(channel);
        conn.stream.shutdown(Shutdown::Write).unwrap();
        conn.write_all(b"a secret").unwrap();
        conn.flush().unwrap_err();
        assert!(conn.channel.is_some());
    }
}
