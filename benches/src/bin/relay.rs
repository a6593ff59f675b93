//! A relay before a worker that makes its way longer: every byte arrives so much later, in both directions.
//!
//! ```text
//! relay LISTEN TARGET MILLISECONDS        relay 10.0.0.2:9990 10.0.0.2:9991 1.0
//! ```
//! TCP connections are carried on to TARGET, and datagrams, which ask what is spoken there, too. A link between two workers goes by
//! the relay of the one that is called, as the root names them; so it is each link that gets longer, by twice the time for a
//! round trip.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Blocks on their way, each of up to [`BLOCK`] bytes.
const BLOCKS: usize = 256;
const BLOCK: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [listen, target, milliseconds] = &args[..] else {
        return Err("usage: relay LISTEN TARGET MILLISECONDS, such as relay 10.0.0.2:9990 10.0.0.2:9991 1.0".into());
    };
    let (listen, target): (SocketAddr, SocketAddr) = (listen.parse()?, target.parse()?);
    let delay = Duration::try_from_secs_f64(milliseconds.parse::<f64>()? / 1e3)?;
    let (listener, questions) = (TcpListener::bind(listen)?, UdpSocket::bind(listen)?);
    thread::spawn(move || ask(&questions, target));
    for client in listener.incoming() {
        let client = client?;
        // Whose target is not there hears it at once.
        let Ok(server) = TcpStream::connect(target) else { continue };
        carry(client.try_clone()?, server.try_clone()?, delay)?;
        carry(server, client, delay)?;
    }
    Ok(())
}

/// Asks questions for others, one after the other, without delay.
fn ask(questions: &UdpSocket, target: SocketAddr) {
    let mut bytes = [0; 1500];
    while let Ok((len, from)) = questions.recv_from(&mut bytes) {
        // Whoever gets no answer asks again.
        let _ = answer(&bytes[..len], target).and_then(|answer| questions.send_to(&answer, from));
    }
}

fn answer(question: &[u8], target: SocketAddr) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((target.ip(), 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(40)))?;
    socket.send_to(question, target)?;
    let mut bytes = vec![0; 1500];
    let len = socket.recv(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Carries one direction of a connection, in two threads: one takes what comes, one gives it when it is due.
fn carry(mut from: TcpStream, to: TcpStream, delay: Duration) -> std::io::Result<()> {
    to.set_nodelay(true)?;
    let (due, blocks) = sync_channel(BLOCKS);
    thread::spawn(move || {
        let mut bytes = vec![0; BLOCK];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            if due.send((Instant::now() + delay, bytes[..len].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || give(&blocks, to));
    Ok(())
}

fn give(blocks: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (due, bytes) in blocks {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // An end of one side is one of both.
    let _ = to.shutdown(Shutdown::Both);
}
