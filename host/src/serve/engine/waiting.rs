//! Who waits for a seat: in turn by client, so that one who asks for much does not keep others out.

use super::ask::Ask;
use std::collections::VecDeque;

/// Those who wait, client by client.
#[derive(Debug, Default)]
pub struct Waiting {
    clients: VecDeque<(String, VecDeque<Ask>)>,
}

impl Waiting {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.clients.iter().map(|(_, asks)| asks.len()).sum()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// One more waits.
    pub fn push(&mut self, ask: Ask) {
        match self.clients.iter_mut().find(|(client, _)| *client == ask.client) {
            Some((_, asks)) => asks.push_back(ask),
            None => self.clients.push_back((ask.client.clone(), VecDeque::from([ask]))),
        }
    }

    /// Whose turn it is; his client's next one waits for all other clients'.
    pub fn pop(&mut self) -> Option<Ask> {
        let (client, mut asks) = self.clients.pop_front()?;
        let first = asks.pop_front();
        if !asks.is_empty() {
            self.clients.push_back((client, asks));
        }
        first
    }

    /// Takes out those of which `is_out` says so.
    pub fn take(&mut self, is_out: impl Fn(&Ask) -> bool) -> Vec<Ask> {
        let mut out = Vec::new();
        for (_, asks) in &mut self.clients {
            for ask in std::mem::take(asks) {
                if is_out(&ask) {
                    out.push(ask);
                } else {
                    asks.push_back(ask);
                }
            }
        }
        self.clients.retain(|(_, asks)| !asks.is_empty());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::engine::{Choice, Event, Timeline};
    use dair_core::text::Sampler;
    use std::time::Instant;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn ask(client: &str, tokens: u32) -> (Ask, UnboundedReceiver<Event>) {
        let (listener, heard) = unbounded_channel();
        let sampler = Sampler::new(0.0, 0.0, 1).unwrap();
        let choice = Choice { sampler, bias: Vec::new(), logprobs: None, constraint: None };
        let ask = Ask {
            prompt: vec![1],
            max_tokens: tokens,
            choice,
            stop: Vec::new(),
            ignore_eos: false,
            deadline: Instant::now(),
            client: client.into(),
            listener,
            ticket: None,
            timeline: Timeline::begin(client, 1),
        };
        (ask, heard)
    }

    #[test]
    fn clients_have_their_turns_and_their_own_order() {
        let mut waiting = Waiting::default();
        let asks = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)].map(|(client, n)| ask(client, n));
        let (asks, mut heard): (Vec<_>, Vec<_>) = asks.into_iter().unzip();
        asks.into_iter().for_each(|ask| waiting.push(ask));
        // Who has gone away does not wait any more.
        heard.remove(1);
        assert_eq!(waiting.take(|ask| ask.listener.is_closed()).len(), 1);
        assert_eq!(waiting.len(), 5);
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop()).map(|ask| ask.max_tokens).collect();
        assert_eq!(order, [1, 4, 5, 3, 6]);
        assert!(waiting.is_empty());
    }
}
