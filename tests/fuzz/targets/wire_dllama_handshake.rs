//! The `dllama` dialect: the first words of a root, control packets, and what a worker answers.

#![no_main]

use dair_core::wire::Part;
use dair_core::wire::dllama::{
    Answer, Control, Hello, Peer, read_ack, read_answer, read_hello, read_peer, write_hello,
};

dair_fuzz::target!(1 << 20, 64, |bytes| {
    hear(bytes);
    let _ = read_ack(&mut &bytes[..], Part::Network);
    if let Ok(Answer::Refused(reason)) = read_answer(&mut &bytes[..]) {
        assert!(!reason.contains('\0'));
    }
    for packet in bytes.as_chunks().0 {
        if let Ok(Some(Control { position, batch })) = Control::parse(*packet, 32, 64) {
            assert!(batch <= 32 && position + batch <= 64);
        }
    }
});

fn hear(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(hello) = read_hello(&mut rest) else { return };
    let Hello { workers, index } = hello;
    assert!(index < workers);
    let peers: Result<Vec<Peer>, _> = (0..workers - 1).map(|peer| read_peer(&mut rest, peer)).collect();
    let Ok(peers) = peers else { return };
    let mut out = Vec::new();
    write_hello(&mut out, hello, peers.iter().map(|peer| (peer.host.as_str(), peer.port))).expect("memory");
    assert_eq!(out, bytes[..bytes.len() - rest.len()]);
}
