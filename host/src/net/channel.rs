//! An encrypted connection: the handshake by which two nodes prove to each other that they know the cluster's key, and the frames
//! that carry everything after it.
//!
//! The pattern is `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s`. Both sides make a key pair for this connection alone, so what was
//! recorded tells nothing to whoever gets the cluster's key later, and opens nothing when it is sent again. Whoever does not know
//! the key is found out by the first message, before anything costly is computed for him.
//!
//! ```text
//! caller                                    called
//! public key, seal        (48 bytes)
//!                                           public key, seal        (48 bytes)
//! frame, …                                  frame, …
//! ```
//! A frame is its length in bytes (u16, of what follows), once more with all bits turned, so that a length that was spoiled on its
//! way is not waited for, up to [`FRAME`] bytes encrypted, and their seal of 16 bytes, which also
//! vouches for the frame's place. The one who was called says nothing before it has opened a frame: a first message that was recorded
//! elsewhere is answered by a public key, and nothing more.

use super::NetError;
use super::conn::Conn;
use super::key::{Key, Keys};
use dair_core::wire::Part;
use dair_core::wire::native::{GREETING, SECURED};
use embedded_io::Write;
use snow::{Builder, HandshakeState, TransportState};
use std::{fmt, io};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Bytes of each message of the handshake.
const MESSAGE: usize = 48;
/// Bytes of a frame's length, which stands there twice, and of its seal.
const LENGTH: usize = 4;
const SEAL: usize = 16;
/// Most bytes that a frame carries: so many cost little more than encrypting them, and are not waited for long.
const FRAME: usize = 16 << 10;
/// Room for frames that are on their way in or out.
const BLOCK: usize = 2 * (LENGTH + FRAME + SEAL);

/// What carries a conversation after its handshake. It takes no memory once it has carried a full block either way.
pub(super) struct Channel {
    noise: TransportState,
    /// For the next frame.
    plain: Vec<u8>,
    /// Frames, of which so many bytes are written.
    sealed: Vec<u8>,
    written: usize,
    /// What was read, so many bytes; between two calls less than a frame.
    input: Box<[u8]>,
    filled: usize,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

/// A frame that this connection's peer has not made, or not for this place.
fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "encrypted data that was changed on the way")
}

impl Channel {
    fn new(noise: TransportState) -> Self {
        let (plain, sealed) = (Vec::with_capacity(FRAME), Vec::with_capacity(BLOCK));
        Self { noise, plain, sealed, written: 0, input: vec![0; BLOCK].into(), filled: 0 }
    }

    /// Takes bytes for the peer, as far as there is room: how many.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && self.sealed.len() + LENGTH + FRAME + SEAL <= BLOCK {
            let (now, later) = rest.split_at(rest.len().min(FRAME - self.plain.len()));
            self.plain.extend_from_slice(now);
            rest = later;
            if self.plain.len() == FRAME {
                self.seal();
            }
        }
        bytes.len() - rest.len()
    }

    /// Ends a frame: what was put is ready to be written.
    pub(super) fn seal(&mut self) {
        if self.plain.is_empty() {
            return;
        }
        let (start, len) = (self.sealed.len() + LENGTH, self.plain.len() + SEAL);
        self.sealed.extend_from_slice(&length(len));
        self.sealed.resize(start + len, 0);
        // It fails at the end of 2^64 frames, and where there is no room.
        self.noise.write_message(&self.plain, &mut self.sealed[start..]).expect("a frame has room and a number");
        self.plain.clear();
    }

    /// Hands frames to `write`, once: what it wrote.
    pub(super) fn write_with(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let bytes = write(&self.sealed[self.written..])?;
        self.written += bytes;
        if self.written == self.sealed.len() {
            self.sealed.clear();
            self.written = 0;
        }
        Ok(bytes)
    }

    /// Whether all that was put is written.
    pub(super) fn is_written(&self) -> bool {
        self.plain.is_empty() && self.sealed.is_empty()
    }

    /// Whether a part of a frame was read.
    pub(super) fn has_begun_a_frame(&self) -> bool {
        self.filled > 0
    }

    /// Lets `read` read, once, and adds the content of all frames that are complete then to `out`: how many bytes were read.
    ///
    /// # Errors
    /// Those of `read`, and a frame that the peer has not sent in this place.
    pub(super) fn read_with(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let bytes = read(&mut self.input[self.filled..])?;
        self.filled += bytes;
        let mut at = 0;
        while let Some(found) = self.input[at..self.filled].first_chunk::<LENGTH>() {
            let len = usize::from(u16::from_le_bytes([found[0], found[1]]));
            if !(SEAL + 1..=SEAL + FRAME).contains(&len) || length(len) != *found {
                return Err(broken());
            }
            let Some(frame) = self.input[at + LENGTH..self.filled].get(..len) else { break };
            let start = out.len();
            out.resize(start + len - SEAL, 0);
            if self.noise.read_message(frame, &mut out[start..]).is_err() {
                out.truncate(start);
                return Err(broken());
            }
            at += LENGTH + len;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(bytes)
    }
}

/// How a frame of so many bytes begins.
fn length(len: usize) -> [u8; LENGTH] {
    let [low, high] = (len as u16).to_le_bytes();
    [low, high, !low, !high]
}

/// One side of a handshake about a conversation that began with `word`.
fn handshake(key: &Key, word: &[u8; 8], calls: bool) -> HandshakeState {
    let prologue = [&word[..], &GREETING, &[SECURED]].concat();
    let builder = Builder::new(PATTERN.parse().expect("a pattern of Noise"));
    let builder = builder.psk(0, key.bytes()).and_then(|builder| builder.prologue(&prologue));
    let state = builder.and_then(|builder| if calls { builder.build_initiator() } else { builder.build_responder() });
    state.expect("what the pattern needs")
}

/// The next message of this side.
fn message(state: &mut HandshakeState) -> Result<[u8; MESSAGE], NetError> {
    let mut message = [0; MESSAGE];
    // The system may have no random bytes.
    let written = state.write_message(&[], &mut message);
    written.map_err(|error| NetError::System(io::Error::other(error.to_string())))?;
    Ok(message)
}

fn channel(state: HandshakeState) -> Option<Channel> {
    state.into_transport_mode().ok().map(Channel::new)
}

/// The caller's side, up to the answer.
struct Caller(HandshakeState);

impl Caller {
    fn new(key: &Key, word: &[u8; 8]) -> Result<(Self, [u8; MESSAGE]), NetError> {
        let mut state = handshake(key, word, true);
        let message = message(&mut state)?;
        Ok((Self(state), message))
    }

    /// Nothing where the answer comes from somebody who does not know the key.
    fn finish(mut self, answer: &[u8; MESSAGE]) -> Option<Channel> {
        self.0.read_message(answer, &mut []).ok()?;
        channel(self.0)
    }
}

/// The side of whoever was called: nothing where the message comes from somebody who knows none of the keys.
fn answer(keys: &Keys, word: &[u8; 8], call: &[u8; MESSAGE]) -> Result<Option<(Channel, [u8; MESSAGE])>, NetError> {
    let knows = |key: &Key| {
        let mut state = handshake(key, word, false);
        state.read_message(call, &mut []).is_ok().then_some(state)
    };
    let Some(mut state) = keys.iter().find_map(knows) else { return Ok(None) };
    let answer = message(&mut state)?;
    Ok(channel(state).map(|channel| (channel, answer)))
}

impl Conn {
    /// Goes on encrypted after `word` was said, if the peer knows `key`.
    pub(super) fn call_secured(&mut self, key: &Key, word: &[u8; 8]) -> Result<(), NetError> {
        let (caller, message) = Caller::new(key, word)?;
        let stranger = |error| match error {
            // That is all that somebody says who does not know it.
            NetError::Closed { peer, .. } => NetError::OtherKey { peer },
            error => error,
        };
        self.write_with(Part::Handshake, |conn| conn.write_all(&message)).map_err(stranger)?;
        let answer = self.read_bytes(Part::Handshake).map_err(stranger)?;
        self.go_on(caller.finish(&answer))
    }

    /// Hears the handshake of a caller who has said `word`, and goes on encrypted, if he knows one of `keys`.
    pub(super) fn answer_secured(&mut self, keys: &Keys, word: &[u8; 8]) -> Result<(), NetError> {
        let call = self.read_bytes(Part::Handshake)?;
        let Some((channel, message)) = answer(keys, word, &call)? else { return self.go_on(None) };
        self.write_with(Part::Handshake, |conn| conn.write_all(&message))?;
        self.go_on(Some(channel))
    }

    fn go_on(&mut self, channel: Option<Channel>) -> Result<(), NetError> {
        // Nobody sends more than the handshake before it is over.
        match channel.filter(|_| !self.has_input()) {
            Some(channel) => {
                self.secure(channel);
                Ok(())
            }
            None => Err(NetError::OtherKey { peer: self.peer().into() }),
        }
    }
}

/// Two ends of a conversation, for tests.
#[cfg(test)]
pub(super) fn pair() -> [Channel; 2] {
    let (key, word) = (Key::fresh().unwrap(), b"a pair :");
    let (caller, call) = Caller::new(&key, word).unwrap();
    let (called, message) = answer(&key.into(), word, &call).unwrap().unwrap();
    [caller.finish(&message).unwrap(), called]
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &[u8; 8] = b"a word :";

    fn key() -> Key {
        Key::fresh().unwrap()
    }

    fn keys(all: &[&Key]) -> Keys {
        let mut keys = Keys::default();
        all.iter().for_each(|key| keys.push((*key).clone()).unwrap());
        keys
    }

    /// What `from` sends of `bytes`, frame by frame of up to `frame` bytes.
    fn send(from: &mut Channel, bytes: &[u8], frame: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        for part in bytes.chunks(frame) {
            let mut at = 0;
            while at < part.len() {
                at += from.put(&part[at..]);
                from.seal();
                while !from.is_written() {
                    from.write_with(|bytes| {
                        let some = bytes.len().min(1000);
                        sent.extend_from_slice(&bytes[..some]);
                        Ok(some)
                    })
                    .unwrap();
                }
            }
        }
        sent
    }

    /// What `to` makes of `bytes` that come in pieces of up to `piece` bytes.
    fn receive(to: &mut Channel, mut bytes: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let read = |space: &mut [u8]| {
                let len = bytes.len().min(piece).min(space.len());
                space[..len].copy_from_slice(&bytes[..len]);
                bytes = &bytes[len..];
                Ok(len)
            };
            to.read_with(read, &mut out).map_err(|error| error.to_string())?;
        }
        Ok(out)
    }

    #[test]
    fn what_is_sent_arrives_both_ways_in_frames_and_pieces_of_any_size() {
        let [mut a, mut b] = pair();
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for (frame, piece) in [(100_000, 100_000), (100_000, 7), (1, 3), (FRAME, BLOCK), (FRAME + 1, 4097)] {
            let bytes = &bytes[..if frame == 1 { 500 } else { bytes.len() }];
            let sent = send(&mut a, bytes, frame);
            assert!(!sent.windows(8).any(|window| window == &bytes[..8]), "it can be read on the way");
            assert!(receive(&mut b, &sent, piece).unwrap() == bytes, "frames of {frame}, pieces of {piece}");
            std::mem::swap(&mut a, &mut b);
        }
    }

    #[test]
    fn small_words_travel_in_one_frame() {
        let [mut a, mut b] = pair();
        assert_eq!((a.put(b"announced, "), a.put(b"exchanged")), (11, 9));
        a.seal();
        let sent = send(&mut a, &[], 1);
        assert!(sent.is_empty() && !a.is_written());
        let mut sent = Vec::new();
        a.write_with(|bytes| {
            sent.extend_from_slice(bytes);
            Ok(bytes.len())
        })
        .unwrap();
        assert_eq!((sent.len(), a.is_written()), (LENGTH + 20 + SEAL, true));
        assert_eq!(receive(&mut b, &sent, 1000).unwrap(), b"announced, exchanged");
    }

    #[test]
    fn both_keys_of_a_node_are_accepted_and_no_other_one() {
        let [old, new, other] = [key(), key(), key()];
        let both = keys(&[&new, &old]);
        for (key, knows) in [(&old, true), (&new, true), (&other, false)] {
            let (caller, call) = Caller::new(key, WORD).unwrap();
            let answered = answer(&both, WORD, &call).unwrap();
            assert_eq!(answered.is_some(), knows);
            assert!(answered.is_none_or(|(_, message)| caller.finish(&message).is_some()));
        }
        let (_, call) = Caller::new(&old, WORD).unwrap();
        assert!(answer(&keys(&[&new]), WORD, &call).unwrap().is_none());
        assert!(answer(&keys(&[&old]), b"another:", &call).unwrap().is_none(), "it was meant otherwise");
    }

    #[test]
    fn an_answer_of_somebody_else_or_to_another_call_is_no_answer() {
        let key = key();
        let (first, call) = Caller::new(&key, WORD).unwrap();
        let (second, _) = Caller::new(&key, WORD).unwrap();
        let (_, message) = answer(&keys(&[&key]), WORD, &call).unwrap().unwrap();
        assert!(second.finish(&message).is_none(), "an answer to another call");
        assert!(first.finish(&call).is_none(), "the call itself");
        for bit in 0..8 * MESSAGE {
            let mut call = call;
            call[bit / 8] ^= 1 << (bit % 8);
            // The highest bit of a public key does not count for the key, but for the seal.
            assert!(answer(&keys(&[&key]), WORD, &call).unwrap().is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_conversation_that_is_sent_again_opens_nothing() {
        let key = key();
        let (caller, call) = Caller::new(&key, WORD).unwrap();
        let (mut first, message) = answer(&keys(&[&key]), WORD, &call).unwrap().unwrap();
        let frames = send(&mut caller.finish(&message).unwrap(), b"a plan", 6);
        assert_eq!(receive(&mut first, &frames, 100).unwrap(), b"a plan");
        assert!(receive(&mut first, &frames, 100).is_err(), "twice in one conversation");
        let (mut second, another) = answer(&keys(&[&key]), WORD, &call).unwrap().unwrap();
        assert_ne!(message, another);
        assert!(receive(&mut second, &frames, 100).is_err(), "in another one");
    }

    #[test]
    fn frames_that_are_changed_cut_dropped_or_in_another_order_are_refused() {
        let words = [&b"first"[..], b"second", b"third"];
        // What is made of frames with the same words, and what the receiver makes of that.
        let after = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let [mut a, mut b] = pair();
            let mut frames: Vec<_> = words.iter().map(|word| send(&mut a, word, 100)).collect();
            change(&mut frames);
            receive(&mut b, &frames.concat(), usize::MAX)
        };
        assert_eq!(after(&|_| ()), Ok(words.concat()));
        assert!(after(&|frames| frames.swap(1, 2)).is_err());
        assert!(after(&|frames| drop(frames.remove(0))).is_err());
        assert!(after(&|frames| frames.insert(1, frames[0].clone())).is_err());
        assert_eq!(after(&|frames| frames[2].truncate(10)), Ok(words[..2].concat()), "it is waited for the rest");
        for byte in 0..LENGTH + 6 + SEAL {
            for bit in 0..8 {
                let got = after(&|frames| frames[1][byte] ^= 1 << bit);
                assert!(got.is_err(), "bit {bit} of byte {byte}: {got:?}");
            }
        }
        let [mut a, _] = pair();
        let own = send(&mut a, b"echo", 4);
        assert!(receive(&mut a, &own, 100).is_err(), "its own frame, sent back");
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused_before_their_bytes_come() {
        for len in [0, SEAL, SEAL + FRAME + 1, 0xffff] {
            let [_, mut b] = pair();
            assert!(receive(&mut b, &length(len), LENGTH).is_err(), "{len}");
        }
    }

    #[test]
    fn memory_stays_what_it_is() {
        let [mut a, mut b] = pair();
        let bytes = vec![7; 5 * BLOCK];
        let sizes = |channel: &Channel| (channel.plain.capacity(), channel.sealed.capacity(), channel.input.len());
        let before = sizes(&a);
        let sent = send(&mut a, &bytes, bytes.len());
        receive(&mut b, &sent, usize::MAX).unwrap();
        assert_eq!((sizes(&a), sizes(&b)), (before, before));
    }
}
