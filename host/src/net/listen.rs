//! A worker's side: take a root, learn who is who, link up with the other workers, receive graph and weights.

use super::conn::Conn;
use super::dial::connect;
use super::door::Door;
use super::native;
use super::{Address, Mesh, NetError, Timeouts};
use crate::cluster::tables::GraphTables;
use dair_core::graph::Graph;
use dair_core::wire::Part;
use dair_core::wire::dllama::{
    Hello, Node, read_hello, read_network, read_node, read_peer, read_weights, write_kin, write_refusal,
};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between taking the last link of a lower worker and making the first one to a higher. Links carry no name: a worker
/// tells lower ones apart by the order in which they come, so the lowest must have dialled everyone before the next
/// one does.
const TURN: Duration = Duration::from_millis(5);

/// How often a session looks for a link that may have come.
const LOOK: Duration = Duration::from_millis(2);

/// The open port of a worker.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    timeouts: Timeouts,
    /// As long as it is there, questions are answered.
    _alive: Arc<()>,
}

/// A root of the `dllama` dialect that has said who is who, and waits.
#[derive(Debug)]
pub struct Root {
    conn: Conn,
    hello: Hello,
    /// Other workers, in their order.
    others: Vec<Address>,
}

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
    /// Listens on a socket address; port 0 is any that is free.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind_to(address: SocketAddr, timeouts: Timeouts) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        let alive = Arc::new(());
        native::answer_questions(socket.local_addr()?, Arc::downgrade(&alive))?;
        Ok(Self { socket, timeouts, _alive: alive })
    }

    /// How long it waits for others.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits, as long as it takes, for a connection.
    pub(super) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            match self.socket.accept() {
                Ok(client) => return Ok(client),
                // The client gave up before it was its turn.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                // Without a free descriptor, others have to go first.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Root {
    /// Hears who this worker is to be.
    pub(super) fn hear(mut conn: Conn) -> Result<Self, NetError> {
        let hello = conn.read_with(read_hello)?;
        let mut others = Vec::new();
        for index in 0..hello.workers - 1 {
            let peer = conn.read_with(|root| read_peer(root, index))?;
            others.push(Address { host: peer.host.as_str().to_owned(), port: peer.port });
        }
        Ok(Self { conn, hello, others })
    }

    /// How messages call it.
    pub fn peer(&self) -> &str {
        self.conn.peer()
    }

    /// Goes on with the handshake, and links up with the other workers.
    ///
    /// # Errors
    /// Where the root goes away or is silent, or another worker can't be reached.
    pub fn join(self, door: &Door) -> Result<Joined, NetError> {
        let (Self { conn: mut root, hello, others }, timeouts) = (self, door.timeouts());
        let progress = timeouts.progress;
        // Other workers hear only after this that they may call.
        let since = Instant::now();
        root.send_ack(Part::Handshake)?;
        // The root may still be waiting for other workers.
        root.begin(progress);
        root.expect_ack(Part::Handshake)?;

        let (lower, higher) = others.split_at(hello.index as usize);
        let mut warnings = Vec::new();
        let mut peers = accept_lower(door, since, lower, &mut warnings)?;
        if !lower.is_empty() && !higher.is_empty() {
            std::thread::sleep(TURN);
        }
        for (node, address) in (hello.index + 2..).zip(higher) {
            let stream = connect(address, timeouts)?;
            peers.push((node, Conn::new(stream, format!("worker {address}"), progress)?));
        }
        Ok(Joined { root, peers, node: hello.index + 1, nodes: hello.workers + 1, progress, by_kin: false, warnings })
    }
}

/// Takes one connection from each of the workers `lower`, which are the nodes 1, 2, …: one that came after `since` from an address
/// of theirs, as far as those can be told here.
fn accept_lower(
    door: &Door,
    since: Instant,
    lower: &[Address],
    warnings: &mut Vec<String>,
) -> Result<Vec<(u32, Conn)>, NetError> {
    let progress = door.timeouts().progress;
    // A host that can't be resolved here can't be told by its address.
    let hosts: Vec<Vec<IpAddr>> = lower
        .iter()
        .map(|address| address.resolve().unwrap_or_default().iter().map(SocketAddr::ip).collect())
        .collect();
    let deadline = Instant::now() + progress;
    let mut arrived: Vec<(TcpStream, SocketAddr)> = Vec::with_capacity(lower.len());
    while arrived.len() < lower.len() {
        // Who comes from nowhere that is known is taken where somebody is expected from elsewhere than he says.
        let knows = |ip: IpAddr| hosts.iter().any(|host| host.contains(&ip.to_canonical()));
        let is_late = Instant::now() + progress / 2 > deadline;
        match door.take_silent(since, |ip| knows(ip) || is_late || hosts.iter().any(Vec::is_empty)) {
            Some(link) => arrived.push(link),
            None if Instant::now() > deadline => {
                let missing = lower.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
                let peer = format!("{} of the workers {missing}", lower.len() - arrived.len());
                return Err(NetError::Silent { peer, phase: "the set-up of links", timeout: progress });
            }
            None => std::thread::sleep(LOOK),
        }
    }
    let places = places(&hosts, &arrived.iter().map(|(_, from)| from.ip()).collect::<Vec<_>>());
    let mut peers = Vec::with_capacity(lower.len());
    for ((stream, from), place) in arrived.into_iter().zip(places) {
        let address = &lower[place];
        if !hosts[place].contains(&from.ip()) {
            warnings
                .push(format!("a link from {} is taken for worker {address}, which has other addresses", from.ip()));
        }
        peers.push((place as u32 + 1, Conn::new(stream, format!("worker {address}"), progress)?));
    }
    peers.sort_by_key(|(node, _)| *node);
    Ok(peers)
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
