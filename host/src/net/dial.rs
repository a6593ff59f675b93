//! The root's side: connect to every worker, say who is who, send each its graph and its weights.

use super::conn::Conn;
use super::{Address, Mesh, NetError, Stage, Timeouts, printable};
use dair_core::graph::{Graph, MAX_NODES};
use dair_core::io::Storage;
use dair_core::wire::Part;
use dair_core::wire::dllama::{
    Answer, Hello, SendError, finish_weights, read_answer, records, unsupported, weight_bytes, write_hello,
    write_network, write_node_as_kin, write_record,
};
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two attempts to reach a worker that is not there yet.
const RETRY: Duration = Duration::from_millis(100);

/// Workers that know each other and wait for their graphs; worker `index` is node `index + 1`.
#[derive(Debug)]
pub struct Workers<'w> {
    addresses: &'w [Address],
    conns: Vec<Conn>,
    progress: Duration,
}

/// Connects to all `workers` and tells them of each other; `stage` hears who is waited for.
///
/// # Errors
/// Names the worker that can't be reached or does not answer, and the mistake in a list that can't work.
pub fn dial<'w>(
    workers: &'w [Address],
    timeouts: &Timeouts,
    stage: impl Fn(Stage<'_>),
) -> Result<Workers<'w>, NetError> {
    check(workers)?;
    let mut conns = Vec::with_capacity(workers.len());
    for (index, worker) in (0..).zip(workers) {
        stage(Stage::Connect(worker));
        let mut conn = Conn::new(connect(worker, timeouts)?, format!("worker {worker}"), timeouts.handshake)?;
        let hello = Hello { workers: workers.len() as u32, index };
        let others: Vec<_> = (0..).zip(workers).filter(|(other, _)| *other != index).collect();
        let others = others.iter().map(|(_, address)| (address.host.as_str(), address.port));
        // At once: a connection that says nothing could be another worker's link.
        conn.write_with(Part::Handshake, |conn| write_hello(conn, hello, others))?;
        conns.push(conn);
    }
    for (worker, conn) in workers.iter().zip(&mut conns) {
        stage(Stage::Handshake(worker));
        conn.begin(timeouts.handshake);
        conn.expect_ack(Part::Handshake).map_err(|error| match error {
            NetError::Silent { timeout, .. } => NetError::Unanswered { address: worker.clone(), timeout },
            error => error,
        })?;
    }
    for conn in &mut conns {
        conn.begin(timeouts.progress);
        conn.send_ack(Part::Handshake)?;
    }
    Ok(Workers { addresses: workers, conns, progress: timeouts.progress })
}

/// Refuses lists that no network can be made of.
pub(super) fn check(workers: &[Address]) -> Result<(), NetError> {
    let max = MAX_NODES as usize - 1;
    if workers.is_empty() || workers.len() > max {
        return Err(NetError::Workers(format!("{} workers given; allowed: 1 to {max}", workers.len())));
    }
    for (index, worker) in workers.iter().enumerate() {
        if workers[..index].contains(worker) {
            return Err(NetError::Workers(format!("worker {worker} is given twice")));
        }
    }
    let local = workers.iter().find(|worker| worker.is_loopback());
    let remote = workers.iter().find(|worker| !worker.is_loopback());
    match (local, remote) {
        (Some(local), Some(remote)) => Err(NetError::Workers(format!(
            "workers reach each other by the addresses given here: {remote} can't reach {local}; use this machine's address in the network"
        ))),
        _ => Ok(()),
    }
}

/// Connects to the first address of a name that answers; waits for one that refuses.
pub(super) fn connect(address: &Address, timeouts: &Timeouts) -> Result<TcpStream, NetError> {
    let resolved = address.resolve()?;
    let patience = Instant::now() + timeouts.start;
    loop {
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for socket_address in &resolved {
            match TcpStream::connect_timeout(socket_address, timeouts.connect) {
                Ok(stream) => return Ok(stream),
                Err(refused) => error = refused,
            }
        }
        if error.kind() != io::ErrorKind::ConnectionRefused || Instant::now() >= patience {
            return Err(NetError::Connect { address: address.clone(), error });
        }
        thread::sleep(RETRY);
    }
}

impl Workers<'_> {
    /// Sends each worker its graph: `graphs[index]` is node `index + 1`; `stage` hears who is waited for.
    ///
    /// # Errors
    /// Names the worker that does not take it, with its reason where it is ours; and one that is not ours and could not
    /// compute it, since a C++ worker takes every graph and then ends at what it has no kernel for.
    ///
    /// # Panics
    /// If there is not one graph for each worker.
    pub fn configure(&mut self, graphs: &[Graph<'_>], stage: impl Fn(Stage<'_>)) -> Result<(), NetError> {
        assert_eq!(graphs.len(), self.conns.len(), "a graph for each worker");
        for ((conn, graph), address) in self.conns.iter_mut().zip(graphs).zip(self.addresses) {
            stage(Stage::Configure(address));
            conn.begin(self.progress);
            conn.write_with(Part::Network, |conn| write_network(conn, graph))?;
            conn.expect_ack(Part::Network)?;
            conn.begin(self.progress);
            conn.write_with(Part::Node, |conn| write_node_as_kin(conn, graph))?;
            let (answer, peer) = (conn.read_with(read_answer)?, conn.peer().to_owned());
            match (answer, unsupported(graph)) {
                (Answer::Refused(reason), _) => return Err(NetError::Refused { peer, reason: printable(&reason) }),
                (Answer::Stranger, Some(unsupported)) => return Err(NetError::Foreign { peer, unsupported }),
                (Answer::Stranger | Answer::Kin, _) => {}
            }
        }
        Ok(())
    }

    /// Sends every worker the weights of its graph out of `storage`, to all of them at once. `progress` is told about
    /// bytes as they go out, of [`total_bytes`] in all, from several threads.
    ///
    /// # Errors
    /// Names the worker that does not take them; the others are not served further then.
    pub fn push<S: Storage + ?Sized>(
        &mut self,
        graphs: &[Graph<'_>],
        storage: &S,
        progress: &(impl Fn(u64) + Sync),
    ) -> Result<(), NetError> {
        assert_eq!(graphs.len(), self.conns.len(), "a graph for each worker");
        let failed = AtomicBool::new(false);
        let results: Vec<_> = thread::scope(|scope| {
            let push = |conn: &mut Conn, graph| {
                conn.begin(self.progress);
                let result = push_to(conn, graph, storage, progress, &failed);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                result
            };
            let threads: Vec<_> =
                self.conns.iter_mut().zip(graphs).map(|(conn, graph)| scope.spawn(move || push(conn, graph))).collect();
            threads.into_iter().map(|thread| thread.join().expect("pushing does not panic")).collect()
        });
        results.into_iter().collect()
    }

    /// Ends setting up.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn into_mesh(self) -> Result<Mesh, NetError> {
        Mesh::of_conns(0, (1..).zip(self.conns), self.progress)
    }
}

/// Bytes that [`Workers::push`] sends for these graphs, without what surrounds them.
pub fn total_bytes(graphs: &[Graph<'_>]) -> u64 {
    graphs.iter().map(weight_bytes).sum()
}

/// Sends one worker its weights; stops between two records once another worker has `failed`.
fn push_to<S: Storage + ?Sized>(
    conn: &mut Conn,
    graph: &Graph<'_>,
    storage: &S,
    progress: impl Fn(u64),
    failed: &AtomicBool,
) -> Result<(), NetError> {
    for record in records(graph) {
        if failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut reason = None;
        conn.write_with(Part::Weights, |conn| match write_record(conn, graph, record, storage, &progress) {
            Ok(()) => Ok(()),
            // The system reads the weights itself where they lie in a mapped file, and says so where it is cut meanwhile.
            Err(SendError::Writer(error)) if error.raw_os_error() == Some(libc::EFAULT) => {
                reason = Some("the model file became shorter while it was read".to_owned());
                Ok(())
            }
            Err(SendError::Writer(error)) => Err(error),
            Err(SendError::Storage(error)) => {
                reason = Some(error.to_string());
                Ok(())
            }
        })?;
        if let Some(reason) = reason {
            return Err(NetError::Weights { peer: conn.peer().to_owned(), reason });
        }
    }
    conn.write_with(Part::Weights, finish_weights)?;
    conn.expect_ack(Part::Weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(workers: &[&str]) -> String {
        let workers: Vec<Address> = workers.iter().map(|text| text.parse().unwrap()).collect();
        check(&workers).unwrap_err().to_string()
    }

    #[test]
    fn lists_that_can_not_work_are_refused_before_anyone_is_called() {
        assert_eq!(message(&[]), "0 workers given; allowed: 1 to 255");
        assert_eq!(message(&["a:1", "b:1", "a:1"]), "worker a:1 is given twice");
        assert_eq!(
            message(&["10.0.0.2:1", "127.0.0.1:1"]),
            "workers reach each other by the addresses given here: 10.0.0.2:1 can't reach 127.0.0.1:1; \
             use this machine's address in the network"
        );
    }
}
