//! Workers in threads of the test, on ports of their own.

use dair_core::kernels::KvType;
use dair_host::cluster::node::{self, Event, OwnModel, Summary};
use dair_host::machine::cpu::best_kernels;
use dair_host::machine::pool::Threads;
use dair_host::net::door::Access;
use dair_host::net::listen::Listener;
use dair_host::net::{Address, Timeouts};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// A worker that serves until the test process ends.
#[derive(Debug)]
pub struct Worker {
    /// Where it listens.
    pub address: SocketAddr,
    ended: Receiver<Result<Summary, String>>,
}

/// Long enough for a loaded machine.
pub const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(20),
    start: Duration::from_secs(1),
    handshake: Duration::from_secs(20),
    progress: Duration::from_secs(20),
    silence: Duration::from_secs(5),
};

/// Short enough to wait for.
pub const HASTY: Timeouts =
    Timeouts { handshake: Duration::from_millis(400), progress: Duration::from_millis(400), ..PATIENT };

impl Worker {
    /// Starts a worker with `threads` lanes that keeps keys and values as `kv`.
    ///
    /// # Panics
    /// If there is no port or thread for it.
    pub fn start(timeouts: Timeouts, threads: usize, kv: KvType, max_memory: u64) -> Self {
        Self::with_models(Vec::new(), timeouts, threads, kv, max_memory)
    }

    /// Starts a worker that has model files.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn with_models(models: Vec<OwnModel>, timeouts: Timeouts, threads: usize, kv: KvType, max_memory: u64) -> Self {
        let access = Access { dllama: true, ..Access::default() };
        Self::with_access(access, models, timeouts, threads, (kv, max_memory))
    }

    /// Starts a worker that has model files, and lets in whom `access` says; others let in everybody.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn with_access(
        access: Access,
        models: Vec<OwnModel>,
        timeouts: Timeouts,
        threads: usize,
        (kv, max_memory): (KvType, u64),
    ) -> Self {
        let listener = Listener::bind_to(([127, 0, 0, 1], 0).into(), timeouts).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = channel();
        thread::spawn(move || {
            let pool = Threads::new(threads).unwrap();
            let worker = node::Worker::new(&pool, best_kernels(), kv, (0, 0), models).with_access(access);
            worker.serve(
                &listener,
                || max_memory,
                || false,
                |event| {
                    let result = match event {
                        Event::Joined(..) | Event::Over => return,
                        Event::Stranger(_, error) => Err(error.to_string()),
                        Event::Ended(_, Err(error)) => Err(error.to_string()),
                        Event::Ended(_, Ok(summary)) => Ok(summary.clone()),
                    };
                    // The test may be over.
                    let _ = end.send(result);
                },
            )
        });
        Self { address, ended }
    }

    /// Starts a patient worker with one lane and the usual KV cache.
    pub fn patient() -> Self {
        Self::start(PATIENT, 1, KvType::default(), u64::MAX)
    }

    /// As a root's user writes it.
    pub fn as_address(&self) -> Address {
        Address { host: self.address.ip().to_string(), port: self.address.port() }
    }

    /// A connection to it.
    ///
    /// # Panics
    /// If it does not listen.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENT.progress)).unwrap();
        stream
    }

    /// How the next session ends; the client's port is left out of messages.
    ///
    /// # Panics
    /// If no session ends.
    pub fn ended(&self) -> Result<Summary, String> {
        let result = self.ended.recv_timeout(Duration::from_secs(60)).expect("a session ends");
        result.map_err(|line| {
            let root = line.strip_prefix("root 127.0.0.1:").and_then(|rest| Some((rest, rest.find([' ', ':'])?)));
            root.map_or(line.clone(), |(rest, end)| format!("root{}", &rest[end..]))
        })
    }
}
