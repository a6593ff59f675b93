//! A worker's side: take a root, learn who is who, link up with the other workers, receive graph and weights.

use super::conn::Conn;
use super::dial::connect;
use super::native::{self, Caller};
use super::{Address, Mesh, NetError, Timeouts};
use crate::cluster::tables::GraphTables;
use dair_core::graph::Graph;
use dair_core::wire::Part;
use dair_core::wire::dllama::{
    Node, read_hello, read_network, read_node, read_peer, read_weights, write_kin, write_refusal,
};
use dair_core::wire::native::{CALL, Have};
use mio::{Events, Interest, Poll, Token, net::TcpListener};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between taking the last link of a lower worker and making the first one to a higher. Links carry no name: a worker
/// tells lower ones apart by the order in which they come, so the lowest must have dialled everyone before the next
/// one does.
const TURN: Duration = Duration::from_millis(5);

/// The open port of a worker.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    poll: Poll,
    events: Events,
    timeouts: Timeouts,
    /// As long as it is there, questions are answered.
    _alive: Arc<()>,
}

/// Somebody who has connected to a worker.
#[derive(Debug)]
pub enum Client {
    /// A root that speaks the native dialect.
    Native(Caller),
    /// Whoever does not.
    Dllama(Root),
}

/// A client that may be a root of the `dllama` dialect.
#[derive(Debug)]
pub struct Root(Conn);

/// A worker that has its root and its peers, and waits for its graph.
#[derive(Debug)]
pub struct Joined {
    root: Conn,
    peers: Vec<(u32, Conn)>,
    node: u32,
    nodes: u32,
    progress: Duration,
    /// Whether the root is ours and knows more answers than ACK.
    by_kin: bool,
    /// Said about links whose place is a guess.
    pub warnings: Vec<String>,
}

impl Listener {
    /// Listens on the first address that `address` stands for; port 0 is not special.
    ///
    /// # Errors
    /// Names the address: the port is in use, or the host is not of this machine.
    pub fn bind(address: &Address, timeouts: Timeouts) -> Result<Self, NetError> {
        Self::bind_to(address.resolve()?[0], timeouts)
            .map_err(|error| NetError::Listen { address: address.clone(), error })
    }

    /// Listens on a socket address; port 0 is any that is free.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind_to(address: SocketAddr, timeouts: Timeouts) -> io::Result<Self> {
        let mut socket = TcpListener::bind(address)?;
        let alive = Arc::new(());
        native::answer_questions(socket.local_addr()?, Arc::downgrade(&alive))?;
        let poll = Poll::new()?;
        poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
        Ok(Self { socket, poll, events: Events::with_capacity(1), timeouts, _alive: alive })
    }

    /// How long it waits for others.
    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a connection, until `deadline` if there is one; `None` when it has passed.
    pub(super) fn accept(&mut self, deadline: Option<Instant>) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        loop {
            match self.socket.accept() {
                Ok((stream, from)) => return Ok(Some((stream.into(), from))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The client gave up before it was its turn.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(error),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            match self.poll.poll(&mut self.events, left) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// Waits, as long as it takes, for somebody to connect.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self) -> Result<(TcpStream, SocketAddr), NetError> {
        loop {
            if let Some(client) = self.accept(None).map_err(NetError::System)? {
                return Ok(client);
            }
        }
    }

    /// Hears which dialect a client speaks; one that speaks the native one is told what this worker has.
    ///
    /// # Errors
    /// Where the client goes away or is silent.
    pub fn hear(&mut self, (stream, from): (TcpStream, SocketAddr), have: &Have) -> Result<Client, NetError> {
        let mut root = Conn::new(stream, format!("root {from}"), self.timeouts.handshake)?;
        match root.takes_word(&[CALL], Part::Handshake)? {
            Some(_) => Caller::new(root, have, &self.timeouts).map(Client::Native),
            None => Ok(Client::Dllama(Root(root))),
        }
    }

    /// Goes through the handshake of the `dllama` dialect: hears who this worker is and links up with the other workers.
    ///
    /// # Errors
    /// Where the client is no root, goes away or is silent, or another worker can't be reached.
    pub fn join(&mut self, Root(mut root): Root) -> Result<Joined, NetError> {
        let progress = self.timeouts.progress;
        let hello = root.read_with(read_hello)?;
        let mut others = Vec::new();
        for index in 0..hello.workers - 1 {
            let peer = root.read_with(|root| read_peer(root, index))?;
            others.push(Address { host: peer.host.as_str().to_owned(), port: peer.port });
        }
        root.send_ack(Part::Handshake)?;
        // The root may still be waiting for other workers.
        root.begin(progress);
        root.expect_ack(Part::Handshake)?;

        let (lower, higher) = others.split_at(hello.index as usize);
        let mut warnings = Vec::new();
        let mut peers = self.accept_lower(lower, &mut warnings)?;
        if !lower.is_empty() && !higher.is_empty() {
            std::thread::sleep(TURN);
        }
        for (node, address) in (hello.index + 2..).zip(higher) {
            let stream = connect(address, &self.timeouts)?;
            peers.push((node, Conn::new(stream, format!("worker {address}"), progress)?));
        }
        Ok(Joined { root, peers, node: hello.index + 1, nodes: hello.workers + 1, progress, by_kin: false, warnings })
    }

    /// Takes one connection from each of the workers `lower`, which are the nodes 1, 2, ….
    fn accept_lower(&mut self, lower: &[Address], warnings: &mut Vec<String>) -> Result<Vec<(u32, Conn)>, NetError> {
        let progress = self.timeouts.progress;
        let deadline = Instant::now() + progress;
        let mut arrived = Vec::with_capacity(lower.len());
        while arrived.len() < lower.len() {
            let Some((stream, from)) = self.accept(Some(deadline)).map_err(NetError::System)? else {
                let missing = lower.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
                let peer = format!("{} of the workers {missing}", lower.len() - arrived.len());
                return Err(NetError::Silent { peer, phase: "the set-up of links", timeout: progress });
            };
            if waits_its_turn(&stream).map_err(NetError::System)? {
                arrived.push((stream, from));
            }
        }
        // A host that can't be resolved here can't be told by its address.
        let hosts: Vec<Vec<IpAddr>> = lower
            .iter()
            .map(|address| address.resolve().unwrap_or_default().iter().map(SocketAddr::ip).collect())
            .collect();
        let places = places(&hosts, &arrived.iter().map(|(_, from)| from.ip()).collect::<Vec<_>>());
        let mut peers = Vec::with_capacity(lower.len());
        for ((stream, from), place) in arrived.into_iter().zip(places) {
            let address = &lower[place];
            if !hosts[place].contains(&from.ip()) {
                warnings.push(format!(
                    "a link from {} is taken for worker {address}, which has other addresses",
                    from.ip()
                ));
            }
            peers.push((place as u32 + 1, Conn::new(stream, format!("worker {address}"), progress)?));
        }
        peers.sort_by_key(|(node, _)| *node);
        Ok(peers)
    }
}

/// Whether a client behaves like a worker, which says nothing before the first forward pass. A second root, a scanner
/// or a browser speaks at once, and one that gave up has closed.
fn waits_its_turn(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    match stream.peek(&mut [0]) {
        Err(error) => Ok(error.kind() == io::ErrorKind::WouldBlock),
        Ok(_) => Ok(false),
    }
}

/// Which place each arrival takes: the first free one of its own address; else, in order of arrival, what is left.
fn places(hosts: &[Vec<IpAddr>], arrivals: &[IpAddr]) -> Vec<usize> {
    let mut taken: Vec<Option<usize>> = vec![None; arrivals.len()];
    let mut free: Vec<usize> = (0..hosts.len()).collect();
    for (place, ip) in taken.iter_mut().zip(arrivals) {
        if let Some(index) = free.iter().position(|place| hosts[*place].contains(&ip.to_canonical())) {
            *place = Some(free.remove(index));
        }
    }
    taken.into_iter().map(|place| place.unwrap_or_else(|| free.remove(0))).collect()
}

impl Joined {
    /// This node; the root is 0.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// All nodes, the root included.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// How messages call the root.
    pub fn root(&self) -> &str {
        self.root.peer()
    }

    /// Reads this node's graph, and how many bytes its weights take. The root waits until [`Self::receive`] or
    /// [`Self::refuse`].
    ///
    /// # Errors
    /// Where the root sends no graph within the limits.
    pub fn configure<'t>(&mut self, tables: &'t mut GraphTables) -> Result<(Graph<'t>, u64), NetError> {
        let (node, nodes) = (self.node, self.nodes);
        let mut tables = tables.tables();
        self.root.begin(self.progress);
        let network = self.root.read_with(|root| read_network(root, nodes, &mut tables.pipes))?;
        self.root.send_ack(Part::Network)?;
        self.root.begin(self.progress);
        let Node { graph, weight_bytes, from_kin } =
            self.root.read_with(|root| read_node(root, node, network, tables))?;
        self.by_kin = from_kin;
        Ok((graph, weight_bytes))
    }

    /// Tells a root that can be told why its graph is not accepted, as far as it listens.
    pub fn refuse(&mut self, reason: &str) {
        if self.by_kin {
            // It may be gone; whoever sees this terminal reads the reason there.
            let _ = self.root.write_with(Part::Node, |root| write_refusal(root, reason));
        }
    }

    /// Accepts the graph and reads its weights into `memory`, of the size that [`Self::configure`] returned.
    ///
    /// # Errors
    /// Where weights are missing or do not fit.
    pub fn receive(&mut self, graph: &Graph<'_>, memory: &mut [u8], progress: impl FnMut(u64)) -> Result<(), NetError> {
        self.root.begin(self.progress);
        if self.by_kin {
            self.root.write_with(Part::Node, write_kin)?;
        } else {
            self.root.send_ack(Part::Node)?;
        }
        let mut counters = vec![0; graph.ops.len()];
        self.root.read_with(|root| read_weights(root, graph, memory, &mut counters, progress))?;
        self.root.send_ack(Part::Weights)
    }

    /// Ends setting up.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn into_mesh(self) -> Result<Mesh, NetError> {
        Mesh::of_conns(self.node, [(0, self.root)].into_iter().chain(self.peers), self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_apart_by_address_and_then_by_order() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let host = |last| vec![ip(last)];
        assert_eq!(places(&[host(1), host(2), host(3)], &[ip(3), ip(1), ip(2)]), [2, 0, 1]);
        assert_eq!(places(&[host(1), host(1), host(1)], &[ip(1), ip(1), ip(1)]), [0, 1, 2]);
        assert_eq!(places(&[host(1), host(2), host(1)], &[ip(2), ip(1), ip(1)]), [1, 0, 2]);
        assert_eq!(places(&[vec![], host(2)], &[ip(2), ip(9)]), [1, 0], "an unknown one takes what is left");
        assert_eq!(places(&[host(1), host(2)], &[ip(9), ip(1)]), [1, 0]);
    }
}
