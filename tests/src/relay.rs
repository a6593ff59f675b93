//! A relay before a worker, whose connections a test can hold up or cut.

use dair_core::wire::native::{CALL, GREETING};
use dair_host::net::Address;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Both ends of every connection that was made.
type Streams = Arc<Mutex<Vec<TcpStream>>>;

/// What went over a connection in one direction.
type Record = Arc<Mutex<Vec<u8>>>;

/// A port of this machine that is free for both protocols.
///
/// # Panics
/// If there is none.
pub fn door() -> (TcpListener, UdpSocket, Address) {
    let both = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let address = Address { host: "127.0.0.1".into(), port: at.port() };
        Some((listener, UdpSocket::bind(at).ok()?, address))
    };
    (0..100).find_map(|_| both()).expect("a port that is free for both protocols")
}

/// Listens until the test process ends.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: Address,
    streams: Streams,
    records: Arc<Mutex<Vec<[Record; 2]>>>,
    holds: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    spoils: Arc<AtomicBool>,
}

impl Relay {
    /// Starts one before a worker that speaks the native dialect.
    ///
    /// # Panics
    /// If there is no port for it.
    pub fn to(worker: &Address) -> Self {
        let (listener, questions, address) = door();
        thread::spawn(move || answer(&questions));
        let (streams, worker) = (Streams::default(), (worker.host.clone(), worker.port));
        let (holds, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let spoils = Arc::new(AtomicBool::new(false));
        let (connections, over) = (Arc::clone(&streams), Arc::clone(&is_over));
        let faults = [Arc::clone(&holds), Arc::clone(&spoils)];
        let records = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&records);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    continue;
                }
                // Whose worker is not there hears it at once.
                let Ok(server) = TcpStream::connect((worker.0.as_str(), worker.1)) else { continue };
                let record = [Record::default(), Record::default()];
                recorded.lock().unwrap().push(record.clone());
                let [asked, answered] = record;
                carry(&connections, &faults, (&client, &server), asked);
                carry(&connections, &faults, (&server, &client), answered);
            }
        });
        Self { address, streams, records, holds, is_over, spoils }
    }

    /// What went over each connection so far: to the worker, and from it.
    ///
    /// # Panics
    /// If a thread of the relay has panicked.
    pub fn records(&self) -> Vec<[Vec<u8>; 2]> {
        let copy = |record: &Record| record.lock().unwrap().clone();
        self.records.lock().unwrap().iter().map(|[asked, answered]| [copy(asked), copy(answered)]).collect()
    }

    /// Lets nothing through any more, or all again: as if the worker took its time.
    pub fn hold(&self, holds: bool) {
        self.holds.store(holds, Ordering::Relaxed);
    }

    /// Changes one bit of what comes next.
    pub fn spoil(&self) {
        self.spoils.store(true, Ordering::Relaxed);
    }

    /// Cuts all connections, and every new one: as if the worker had ended.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.cut_all();
    }

    /// Cuts all connections. New ones can be made.
    ///
    /// # Panics
    /// If a thread of the relay has panicked.
    pub fn cut_all(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            // It may be cut on the other side.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn answer(questions: &UdpSocket) {
    let mut question = [0; CALL.len()];
    while let Ok((_, from)) = questions.recv_from(&mut question) {
        // Whoever does not hear it asks again.
        let _ = questions.send_to(&GREETING, from);
    }
}

fn carry(streams: &Streams, faults: &[Arc<AtomicBool>; 2], (from, to): (&TcpStream, &TcpStream), record: Record) {
    let [holds, spoils] = faults.clone();
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    to.set_nodelay(true).unwrap();
    streams.lock().unwrap().push(from.try_clone().unwrap());
    thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        // An end of either side is one of both.
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            record.lock().unwrap().extend_from_slice(&bytes[..len]);
            while holds.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            if spoils.swap(false, Ordering::Relaxed) {
                bytes[len / 2] ^= 4;
            }
            if to.write_all(&bytes[..len]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
