//! Messages of the native dialect: what is written is read, and nothing else does any harm.

use dair_core::exec::{CacheCopy, Logits, Run};
use dair_core::graph::{MAX_BATCH, MAX_NODES};
use dair_core::kernels::KvType;
use dair_core::plan::{Share, Stage};
use dair_core::quant::DType;
use dair_core::wire::native::{
    Beat, Best, Failed, HasModel, Have, ISA_MAX, MESSAGE_MAX, MODELS_MAX, Message, PAGES_MAX, Pages, Pass, Plan,
    PlanNode, REASON_MAX, RESTORED_BYTES, Ready, Spent, VERSION, Wanted, Watch, message_len, write_beat, write_bye,
    write_copy, write_digest, write_drain, write_echo, write_failed, write_go, write_hashing, write_have, write_join,
    write_keep, write_leaving, write_link, write_linked, write_pass, write_plan, write_ready, write_refused,
    write_rest, write_restore, write_restored, write_verify, write_watch,
};
use dair_tests::random::Random;

const BEST: Wanted = Wanted::Best(Best { count: 40, below: 128_000, scale: 1.8 });

fn have() -> Have {
    let model = |index: u8| HasModel {
        fingerprint: [index; 32],
        header: [index ^ 1; 32],
        digest: index.is_multiple_of(2).then_some([index ^ 2; 32]),
        bytes: u64::MAX - u64::from(index),
        name: format!("model-{index}-é.m").as_str().try_into().unwrap(),
    };
    Have {
        version: VERSION,
        threads: 4,
        speed: 1 << 35,
        isa: "x".repeat(ISA_MAX).as_str().try_into().unwrap(),
        disk_speed: 1 << 30,
        memory: 1 << 40,
        busy: "it has served root é".try_into().unwrap(),
        models: (0..MODELS_MAX as u8).map(model).collect(),
    }
}

fn plan() -> Plan {
    Plan {
        version: VERSION,

        session: [7; 16],
        epoch: 3,
        fingerprint: [9; 32],
        node: 2,
        nodes: 4,
        activation: DType::Q80,
        kv: KvType::Q80,
        batch_max: 128,
        seq_len: 8192,
        slots: 4,
        halve_from: 64,
        repack: true,
        lossy: true,
        columns: Some(DType::Q80),
        stages: [Stage { nodes: 1, layers: 12 }, Stage { nodes: 3, layers: 20 }].into_iter().collect(),
    }
}

fn nodes() -> Vec<PlanNode> {
    let node = |index: u16| PlanNode {
        share: Share { layers: index, head: 9 - index },
        host: format!("10.0.0.{index}").as_str().try_into().unwrap(),
        port: 9990 + index,
    };
    (0..4).map(node).collect()
}

const BEAT: Beat = Beat {
    passes: 7,
    busy_us: u64::MAX,
    spent: Spent { passes: 9, compute_us: 10, exchange_us: u64::MAX, disk_us: 12 },
};

const READY: Ready = Ready { arena_bytes: 5, repacked_bytes: u64::MAX, keeps: true };

const PAGES: Pages<'_> = Pages { slot: 3, first: 70, names: &[[7; 16], [8; 16]] };

const COPY: CacheCopy = CacheCopy { from: 1, to: 2, positions: 99 };

const WATCH: Watch = Watch { session: [8; 16], silence_ms: 2000 };

fn pass() -> Pass {
    let runs = [Run { slot: 3, position: 9, rows: 2, logits: Logits::None }, Run::new(700, 1, Logits::Last)];
    Pass { epoch: 3, wanted: BEST, runs: runs.into_iter().collect() }
}

/// Every kind of message, its length first.
fn messages() -> Vec<Vec<u8>> {
    let nodes = nodes();
    let places = nodes.iter().map(|node| (node.share, node.host.as_str(), node.port));
    let mut out = vec![Vec::new(); 24];
    write_have(&mut out[0], &have()).unwrap();
    write_plan(&mut out[1], &plan(), places).unwrap();
    write_ready(&mut out[2], &READY).unwrap();
    write_refused(&mut out[3], "no memory").unwrap();
    write_go(&mut out[4]).unwrap();
    write_linked(&mut out[5]).unwrap();
    write_link(&mut out[6], &[3; 16], 5).unwrap();
    write_pass(&mut out[7], &pass(), &[1, 2, u32::MAX]).unwrap();
    write_bye(&mut out[8]).unwrap();
    write_beat(&mut out[9], &BEAT).unwrap();
    write_rest(&mut out[10]).unwrap();
    write_verify(&mut out[11], &[4; 32]).unwrap();
    write_hashing(&mut out[12], u64::MAX).unwrap();
    write_digest(&mut out[13], &[5; 32]).unwrap();
    write_echo(&mut out[14], &[6; 9]).unwrap();
    write_watch(&mut out[15], &WATCH).unwrap();
    write_failed(&mut out[16], 3, "no disk").unwrap();
    write_drain(&mut out[17]).unwrap();
    write_leaving(&mut out[18]).unwrap();
    write_join(&mut out[19], 9990).unwrap();
    write_copy(&mut out[20], COPY).unwrap();
    write_keep(&mut out[21], &PAGES).unwrap();
    write_restore(&mut out[22], &PAGES).unwrap();
    write_restored(&mut out[23], 2).unwrap();
    out
}

/// The message behind its length.
fn body(message: &[u8]) -> &[u8] {
    let (len, body) = message.split_first_chunk().unwrap();
    assert_eq!(message_len(*len), Ok(body.len()));
    body
}

#[test]
fn what_is_written_is_read() {
    let messages = messages();
    let read = |index: usize| Message::parse(body(&messages[index])).unwrap();
    assert!(matches!(read(0), Message::Have(read) if read == have()));
    let Message::Plan(read_plan, read_nodes) = read(1) else { panic!("not a plan") };
    assert_eq!((read_plan, read_nodes.collect::<Result<Vec<_>, _>>()), (plan(), Ok(nodes())));
    assert!(matches!(read(2), Message::Ready(READY)));
    assert!(matches!(read(3), Message::Refused(reason) if reason == "no memory"));
    assert!(matches!(read(4), Message::Go) && matches!(read(5), Message::Linked) && matches!(read(8), Message::Bye));
    assert!(matches!(read(6), Message::Link(session, 5) if session == [3; 16]));
    let Message::Pass(pass, tokens) = read(7) else { panic!("not a pass") };
    assert_eq!(pass, self::pass());
    assert!(matches!(read(9), Message::Beat(beat) if beat == BEAT) && matches!(read(10), Message::Rest));
    assert_eq!(tokens.ids().collect::<Vec<_>>(), [1, 2, u32::MAX]);
    assert!(matches!(read(11), Message::Verify(fingerprint) if fingerprint == [4; 32]));
    assert!(matches!(read(12), Message::Hashing(u64::MAX)));
    assert!(matches!(read(13), Message::Digest(digest) if digest == [5; 32]));
    assert!(matches!(read(14), Message::Echo(bytes) if bytes == [6; 9]));
    assert!(matches!(read(15), Message::Watch(WATCH)));
    assert!(matches!(read(16), Message::Failed(Failed { node: 3, reason }) if reason == "no disk"));
    assert!(matches!(read(17), Message::Drain) && matches!(read(18), Message::Leaving));
    assert!(matches!(read(19), Message::Join(9990)) && matches!(read(20), Message::Copy(COPY)));
    assert!(matches!(read(21), Message::Keep(PAGES)) && matches!(read(22), Message::Restore(PAGES)));
    assert!(matches!(read(23), Message::Restored(2)) && messages[23].len() == RESTORED_BYTES);
}

#[test]
fn of_a_worker_of_another_version_the_version_is_read() {
    for (version, rest) in [(0, &[][..]), (VERSION + 1, &[9; 40])] {
        let bytes = [&[1][..], &version.to_le_bytes(), rest].concat();
        let Message::Have(read) = Message::parse(&bytes).unwrap() else { panic!("not a Have") };
        assert_eq!(read, Have { version, ..Have::default() });
    }
}

#[test]
fn the_longest_messages_are_within_the_limit() {
    let mut out = Vec::new();
    let stages = (0..MAX_NODES).map(|_| Stage { nodes: 1, layers: 1 }).collect();
    let plan = Plan { node: 1, nodes: MAX_NODES, stages, ..plan() };
    let host = "h".repeat(253);
    write_plan(&mut out, &plan, (0..MAX_NODES).map(|_| (Share::EQUAL, &host[..], 1))).unwrap();
    assert!(out.len() <= MESSAGE_MAX as usize);
    let Message::Plan(_, nodes) = Message::parse(body(&out)).unwrap() else { panic!("not a plan") };
    assert_eq!(nodes.filter(Result::is_ok).count(), MAX_NODES as usize);

    let (mut out, tokens) = (Vec::new(), vec![5; MAX_BATCH as usize]);
    let run = |slot| Run { slot, rows: 1, logits: Logits::All, ..Run::default() };
    let pass = Pass { runs: (0..MAX_BATCH).map(run).collect(), ..Pass::default() };
    write_pass(&mut out, &pass, &tokens).unwrap();
    assert!(Message::parse(body(&out)).is_ok());

    let (mut out, names) = (Vec::new(), vec![[9; 16]; PAGES_MAX]);
    write_keep(&mut out, &Pages { slot: 0, first: 0, names: &names }).unwrap();
    assert!(matches!(Message::parse(body(&out)), Ok(Message::Keep(read)) if read.names == names));

    let (mut out, reason) = (Vec::new(), "é".repeat(REASON_MAX));
    write_refused(&mut out, &reason).unwrap();
    assert!(matches!(Message::parse(body(&out)), Ok(Message::Refused(read)) if read == reason[..REASON_MAX]));
}

/// Reads all there is to read.
fn drain(bytes: &[u8]) -> bool {
    match Message::parse(bytes) {
        Ok(Message::Plan(plan, nodes)) => {
            assert!(plan.node > 0 && plan.node < plan.nodes && plan.nodes <= MAX_NODES);
            // One at a time: an error does not end the iteration, and their number is limited.
            nodes.inspect(|node| drop(node.as_ref().map_err(ToString::to_string))).all(|node| node.is_ok())
        }
        Ok(Message::Pass(pass, tokens)) => {
            assert!(pass.rows() <= MAX_BATCH);
            assert_eq!(tokens.ids().count(), pass.rows() as usize);
            true
        }
        Ok(_) => true,
        Err(invalid) => {
            assert!(invalid.to_string().len() < 200, "{invalid}");
            false
        }
    }
}

#[test]
fn messages_that_are_cut_or_changed_do_no_harm() {
    let (messages, mut random) = (messages(), Random::new(1));
    for message in &messages {
        let message = body(message);
        for len in 0..message.len() {
            // What is echoed has no length of its own.
            assert!(!drain(&message[..len]) || message[0] == 15 && len > 0, "{len} bytes of kind {}", message[0]);
        }
        assert!(drain(message));
    }
    let mut fine = 0;
    for _ in 0..200_000 {
        let mut message = body(&messages[random.below(messages.len())]).to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(message.len());
            message[at] =
                if random.once_in(2) { random.pick(&[0, 1, 2, 127, 128, 255]) } else { random.next_u64() as u8 };
        }
        if random.once_in(8) {
            message.truncate(random.below(message.len() + 1));
        }
        fine += u32::from(drain(&message));
    }
    assert!(fine > 1000, "{fine}: changes that show nothing");
}
