//! The native dialect: a stream of messages, each read to its last field and written as it came.

#![no_main]

use dair_core::wire::native::{
    Message, VERSION, message_len, write_beat, write_bye, write_copy, write_digest, write_drain, write_echo,
    write_failed, write_go, write_hashing, write_have, write_join, write_keep, write_leaving, write_link, write_linked,
    write_pass, write_plan, write_ready, write_refused, write_rest, write_restore, write_restored, write_verify,
    write_watch,
};

dair_fuzz::target!(1 << 20, 16, |bytes| {
    let mut rest = bytes;
    while let Some((len, behind)) = rest.split_first_chunk() {
        let Ok(len) = message_len(*len) else { return };
        let (message, behind) = behind.split_at(len.min(behind.len()));
        read(message);
        rest = behind;
    }
});

fn read(bytes: &[u8]) {
    let message = match Message::parse(bytes) {
        Ok(message) => message,
        Err(invalid) => {
            let line = invalid.to_string();
            assert!(!line.contains('\n') && line.len() < 300, "{line}");
            return;
        }
    };
    let mut out = Vec::new();
    let written = match message {
        // Of another version nothing is known.
        Message::Have(have) if have.version != VERSION => return,
        Message::Have(have) => write_have(&mut out, &have),
        Message::Plan(plan, nodes) => {
            let Ok(nodes) = nodes.collect::<Result<Vec<_>, _>>() else { return };
            write_plan(&mut out, &plan, nodes.iter().map(|node| (node.share, node.host.as_str(), node.port)))
        }
        Message::Ready(ready) => write_ready(&mut out, &ready),
        Message::Refused(reason) => write_refused(&mut out, &reason),
        Message::Go => write_go(&mut out),
        Message::Linked => write_linked(&mut out),
        Message::Link(session, node) => write_link(&mut out, &session, node),
        Message::Pass(pass, tokens) => {
            let tokens: Vec<_> = tokens.ids().collect();
            assert_eq!(tokens.len(), pass.rows() as usize);
            write_pass(&mut out, &pass, &tokens)
        }
        Message::Beat(beat) => write_beat(&mut out, &beat),
        Message::Rest => write_rest(&mut out),
        Message::Bye => write_bye(&mut out),
        Message::Verify(fingerprint) => write_verify(&mut out, &fingerprint),
        Message::Hashing(bytes) => write_hashing(&mut out, bytes),
        Message::Digest(digest) => write_digest(&mut out, &digest),
        Message::Echo(bytes) => write_echo(&mut out, bytes),
        Message::Watch(watch) => write_watch(&mut out, &watch),
        Message::Failed(failed) => write_failed(&mut out, failed.node, &failed.reason),
        Message::Drain => write_drain(&mut out),
        Message::Leaving => write_leaving(&mut out),
        Message::Join(port) => write_join(&mut out, port),
        Message::Copy(copy) => write_copy(&mut out, copy),
        Message::Keep(pages) => write_keep(&mut out, &pages),
        Message::Restore(pages) => write_restore(&mut out, &pages),
        Message::Restored(pages) => write_restored(&mut out, pages),
    };
    written.expect("memory");
    assert_eq!(&out[4..], bytes);
}
