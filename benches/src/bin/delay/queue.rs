//! Frames on their way: each leaves a fixed time after it came, in the order of arrival.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One direction of a pair.
pub struct Queue {
    delay: Duration,
    bytes_max: usize,
    bytes: usize,
    frames: VecDeque<(Instant, Vec<u8>)>,
    /// Memory of frames that have left, for those that come.
    spare: Vec<Vec<u8>>,
}

impl Queue {
    /// A queue that holds at most `bytes_max` bytes.
    pub fn new(delay: Duration, bytes_max: usize) -> Self {
        Self { delay, bytes_max, bytes: 0, frames: VecDeque::new(), spare: Vec::new() }
    }

    /// Takes a frame that came at `now`; `false` where it has no room, as a switch would drop it.
    pub fn push(&mut self, now: Instant, frame: &[u8]) -> bool {
        if frame.len() > self.bytes_max - self.bytes {
            return false;
        }
        self.bytes += frame.len();
        let mut memory = self.spare.pop().unwrap_or_default();
        memory.clear();
        memory.extend_from_slice(frame);
        self.frames.push_back((now + self.delay, memory));
        true
    }

    /// When the next frame is to leave.
    pub fn due(&self) -> Option<Instant> {
        self.frames.front().map(|(due, _)| *due)
    }

    /// Hands the next frame to `send`, if its time has come.
    pub fn pop(&mut self, now: Instant, send: impl FnOnce(&[u8])) -> bool {
        if self.due().is_none_or(|due| due > now) {
            return false;
        }
        let Some((_, frame)) = self.frames.pop_front() else { return false };
        self.bytes -= frame.len();
        send(&frame);
        if self.spare.len() < 64 {
            self.spare.push(frame);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn out(queue: &mut Queue, now: Instant) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while queue.pop(now, |frame| frames.push(frame.to_vec())) {}
        frames
    }

    #[test]
    fn frames_leave_in_order_and_not_before_their_time() {
        let start = Instant::now();
        let mut queue = Queue::new(5 * MS, 1000);
        assert!(queue.push(start, b"one") && queue.push(start + MS, b"two"));
        assert_eq!(queue.due(), Some(start + 5 * MS));
        assert!(out(&mut queue, start + 5 * MS - Duration::from_nanos(1)).is_empty());
        assert_eq!(out(&mut queue, start + 5 * MS), [b"one"]);
        assert!(queue.push(start + 5 * MS, b"three"));
        assert_eq!(out(&mut queue, start + 20 * MS), [b"two".to_vec(), b"three".to_vec()]);
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn a_full_queue_drops_what_comes_and_has_room_again() {
        let start = Instant::now();
        let mut queue = Queue::new(MS, 10);
        assert!(queue.push(start, &[1; 6]));
        assert!(!queue.push(start, &[2; 5]));
        assert!(queue.push(start, &[3; 4]));
        assert_eq!(out(&mut queue, start + MS), [vec![1; 6], vec![3; 4]]);
        assert!(queue.push(start, &[4; 10]));
    }
}
