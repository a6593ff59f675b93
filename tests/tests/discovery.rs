//! Multicast DNS over loopback, in one process and on a port that no other program uses for it.

use dair_host::cluster::discovery::{ClusterName, Discovery};
use dair_host::cluster::newcomers::Newcomers;
use std::thread;
use std::time::Duration;

#[test]
fn who_is_announced_is_found_by_the_name_of_the_cluster_until_it_goes() {
    let discovery = Discovery::on_port(45_353);
    // Another run of this test may be on.
    let cluster = |name: &str| format!("{name}-{}", std::process::id()).parse::<ClusterName>().unwrap();
    let (kitchen, attic) = (cluster("kitchen"), cluster("attic"));
    let announce = |cluster, port| discovery.announce(cluster, ([127, 0, 0, 1], port).into(), 2).unwrap();
    let find = |cluster| -> Vec<_> { discovery.find(cluster).unwrap().iter().map(ToString::to_string).collect() };
    let (seven, five) = (announce(&kitchen, 7), announce(&kitchen, 5));
    let _six = announce(&attic, 6);
    assert_eq!(find(&kitchen), ["127.0.0.1:5", "127.0.0.1:7"]);
    assert_eq!(find(&attic), ["127.0.0.1:6"]);
    drop(seven);
    assert_eq!(find(&kitchen), ["127.0.0.1:5"]);
    drop(five);
    assert_eq!(find(&kitchen), [""; 0]);
}

#[test]
fn who_comes_later_is_heard_of() {
    let discovery = Discovery::on_port(45_354);
    let cluster = format!("cellar-{}", std::process::id()).parse::<ClusterName>().unwrap();
    let announce = |port| discovery.announce(&cluster, ([127, 0, 0, 1], port).into(), 2).unwrap();
    let newcomers = Newcomers::default();
    let _first = announce(5);
    let _watch = discovery.watch(&cluster, &newcomers).unwrap();
    let hears = |port: u16| {
        (0..500).any(|_| {
            thread::sleep(Duration::from_millis(20));
            format!("{newcomers:?}").contains(&format!("port: {port}"))
        })
    };
    assert!(hears(5), "{newcomers:?}");
    let _second = announce(6);
    assert!(hears(6), "{newcomers:?}");
}
