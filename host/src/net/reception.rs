//! Where workers say that they are there, at a root that does not know them: each is called back at the address that it comes from.

use super::door::{Access, Answers, Arrival, Door};
use super::listen::Listener;
use super::{Address, Keys};
use dair_core::wire::native::{Have, VERSION};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::{io, thread};

/// Opens it, until the process ends; only who knows one of `keys`, if there are any, is heard. `joins` hears of workers, `failed` that the
/// port is lost.
///
/// # Errors
/// Where the system refuses a thread.
pub fn open(
    listener: Listener,
    keys: Keys,
    joins: impl Fn(Address) + Send + 'static,
    failed: impl Fn(io::Error) + Send + 'static,
) -> io::Result<()> {
    let receive = move || {
        let have = || Have { version: VERSION, ..Have::default() };
        let digest_of = |_: &_, _: &mut dyn FnMut(u64) -> ControlFlow<()>| Err("a root tells no digests".to_owned());
        let answers = Answers { have: &have, digest_of: &digest_of };
        let door = Door::new(*listener.timeouts(), Access { keys, is_root: true, dllama: false });
        thread::scope(|scope| {
            for arrival in door.open(scope, &listener, &answers) {
                match arrival {
                    Arrival::Worker(from) => joins(address(from)),
                    Arrival::Native(_, mut caller, ..) => {
                        caller.refuse("this is a root, and computes for nobody");
                        door.is_free_again();
                    }
                    // Nobody reads a root's lines about strangers.
                    Arrival::Stranger(..) | Arrival::Dllama(..) => {}
                    Arrival::Failed(error) => return failed(error),
                }
            }
        });
    };
    thread::Builder::new().name("reception".into()).spawn(receive).map(drop)
}

/// Where a worker is called; of an IPv4 address on a socket of both kinds, the usual form.
fn address(from: SocketAddr) -> Address {
    Address { host: from.ip().to_canonical().to_string(), port: from.port() }
}
