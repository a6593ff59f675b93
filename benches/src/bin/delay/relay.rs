//! Interfaces, and the loop that takes frames from them.

use super::queue::Queue;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A frame that the kernel has yet to cut into packets, with its header that says how.
const FRAME_MAX: usize = 68 << 10;
/// Of one direction: 1 Gbit/s for a quarter of a second.
const QUEUE_BYTES: usize = 32 << 20;
/// Frames that are taken from one interface before another's turn.
const TURN: usize = 64;

/// Runs until it is ended, or an interface is gone.
pub fn relay(delay: Duration, pairs: &[(&str, &str)]) -> Result<(), String> {
    punctual();
    let mut ports = Vec::new();
    for name in pairs.iter().flat_map(|(a, b)| [a, b]) {
        ports.push(open(name).map_err(|error| format!("{name}: {error}"))?);
    }
    // What comes to port `i` waits in queue `i`, and leaves on the other port of the pair, `i ^ 1`.
    let mut queues: Vec<_> = ports.iter().map(|_| Queue::new(delay, QUEUE_BYTES)).collect();
    let mut frame = vec![0; FRAME_MAX];
    println!("delaying");
    loop {
        let due = queues.iter().filter_map(Queue::due).min();
        let ready = wait(&ports, due.map(|due| due.saturating_duration_since(Instant::now())))
            .map_err(|error| error.to_string())?;
        for ((mut port, queue), ready) in ports.iter().zip(&mut queues).zip(ready) {
            for _ in 0..if ready { TURN } else { 0 } {
                match port.read(&mut frame) {
                    Ok(len) => _ = queue.push(Instant::now(), &frame[..len]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        for (from, queue) in queues.iter_mut().enumerate() {
            // What the other side has no room for is lost, as on a wire.
            while queue.pop(Instant::now(), |frame| _ = ports[from ^ 1].send(frame)) {}
        }
    }
}

/// Asks for exact timers, and to come before the programs that are measured; whatever is refused, it does without.
fn punctual() {
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: Numbers, and a pointer to a value that outlives the call.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        if libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        }
    }
}

/// All that comes to an interface, whoever it is for, and nothing that leaves there. Frames carry the header in which
/// the kernel notes what it has yet to do: cut them into packets, and put checksums into these.
fn open(name: &str) -> io::Result<Socket> {
    let name = CString::new(name)?;
    // SAFETY: A string that ends with a NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // With protocol 0 nothing comes before the socket is bound to its interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    let packet = libc::SOL_PACKET;
    set(&socket, packet, libc::PACKET_VNET_HDR, &1_i32)?;
    set(&socket, packet, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    let all = libc::packet_mreq {
        mr_ifindex: index as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(&socket, packet, libc::PACKET_ADD_MEMBERSHIP, &all)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(QUEUE_BYTES as i32))?;
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(QUEUE_BYTES as i32))?;
    socket.bind(&address(index as i32))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn set<T>(socket: &Socket, level: i32, option: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: The pointer is to `len` bytes that outlive the call.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn address(index: i32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the addresses that the kernel keeps in such a storage.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    link.sll_ifindex = index;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `len` bytes of the storage are a valid address.
    unsafe { SockAddr::new(storage, len) }
}

/// Waits for frames, `limit` at most: which ports have some.
fn wait(ports: &[Socket], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let poll = |port: &Socket| libc::pollfd { fd: port.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polls: Vec<_> = ports.iter().map(poll).collect();
    let limit = limit
        .map(|limit| libc::timespec { tv_sec: limit.as_secs() as _, tv_nsec: (limit.subsec_nanos() as i32).into() });
    let limit = limit.as_ref().map_or(std::ptr::null(), |limit| &raw const *limit);
    // SAFETY: Pointers to values that outlive the call; no mask of signals.
    let count = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as _, limit, std::ptr::null()) };
    match (count, io::Error::last_os_error()) {
        (0.., _) => Ok(polls.iter().map(|poll| poll.revents != 0).collect()),
        (_, error) if error.kind() == io::ErrorKind::Interrupted => Ok(vec![false; ports.len()]),
        (_, error) => Err(error),
    }
}
