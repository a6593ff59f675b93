//! Workers that are found by themselves: each announces itself on the local network by multicast DNS (RFC 6762, 6763), and a root
//! asks who is there.
//!
//! ```text
//! PTR  _dair._tcp.local.           NAME._dair._tcp.local.
//! SRV  NAME._dair._tcp.local.      port, dair-NUMBER.local.
//! TXT  NAME._dair._tcp.local.      v=VERSION  cluster=CLUSTER  host=HOST  threads=THREADS
//! A, AAAA  dair-NUMBER.local.      addresses on the link that was asked on
//! ```
//! Names have a random number, so that equal names of hosts do not meet. What a worker has is not announced: whoever finds it
//! asks it by [`crate::net::native::call`].

use crate::cluster::newcomers::Newcomers;
use crate::net::Address;
use dair_core::wire::native::VERSION;
use mdns_sd::{IfKind, MDNS_PORT, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

const SERVICE: &str = "_dair._tcp.local.";
/// Longest name of a cluster in bytes.
const CLUSTER_MAX: usize = 63;
/// Longest name of a host that is announced.
const HOST_MAX: usize = 63;
/// Most workers that are listened to: more than a session has, in a network that anybody may speak in.
const FOUND_MAX: usize = 1024;
/// How long answers are heard. The question is asked twice, at once and after a second: datagrams get lost, and whoever has just
/// answered somebody else is silent for a second (RFC 6762, 6).
const WAIT: Duration = Duration::from_millis(1500);

/// Name of a group of workers that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(String);

impl Default for ClusterName {
    fn default() -> Self {
        Self("dair".into())
    }
}

impl FromStr for ClusterName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > CLUSTER_MAX || !name.chars().all(is_plain) {
            return Err(format!(
                "a name of 1 to {CLUSTER_MAX} letters, digits, dots, dashes and underscores is needed"
            ));
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why nobody can be asked, or told.
#[derive(Debug)]
pub struct DiscoveryError(String);

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "multicast DNS: {}", self.0)
    }
}

impl std::error::Error for DiscoveryError {}

impl From<mdns_sd::Error> for DiscoveryError {
    fn from(error: mdns_sd::Error) -> Self {
        Self(error.to_string())
    }
}

/// Multicast DNS on a port.
#[derive(Clone, Copy, Debug)]
pub struct Discovery {
    port: u16,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { port: MDNS_PORT }
    }
}

/// A worker is announced as long as this lives.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Announcement({})", self.name)
    }
}

impl Discovery {
    /// On a port of its own, which nobody hears who is on the usual one.
    pub fn on_port(port: u16) -> Self {
        Self { port }
    }

    /// Announces a worker that listens on `address` and computes with `threads` threads. One that listens on all addresses is
    /// announced on every link with the addresses that it has there.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn announce(
        self,
        cluster: &ClusterName,
        address: SocketAddr,
        threads: usize,
    ) -> Result<Announcement, DiscoveryError> {
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(|error| DiscoveryError(error.to_string()))?;
        let number = format!("{:016x}", u64::from_le_bytes(number));
        let host = host_name();
        let properties = [
            ("v", VERSION.to_string()),
            ("cluster", cluster.to_string()),
            ("host", host.clone()),
            ("threads", threads.to_string()),
        ];
        // A name may have 63 bytes.
        let (name, target) = (format!("{host:.46}-{number}"), format!("dair-{number}.local."));
        let is_all = address.ip().is_unspecified();
        let ips = if is_all { Vec::new() } else { vec![address.ip()] };
        let mut service = ServiceInfo::new(SERVICE, &name, &target, &ips[..], address.port(), &properties[..])?;
        if is_all {
            service = service.enable_addr_auto();
        }
        // A socket of all IPv4 addresses hears nothing else.
        if is_all && address.is_ipv4() {
            service.set_interfaces(vec![IfKind::IPv4]);
        }
        // Nobody else has the number.
        service.set_requires_probe(false);
        let (daemon, name) = (ServiceDaemon::new_with_port(self.port)?, service.get_fullname().to_owned());
        daemon.register(service)?;
        Ok(Announcement { daemon, name })
    }

    /// Asks for the workers of `cluster`, for a second and a half: all that there are, in the order of the names of their hosts, then of
    /// addresses. None of them may be there.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn find(self, cluster: &ClusterName) -> Result<Vec<Address>, DiscoveryError> {
        let daemon = ServiceDaemon::new_with_port(self.port)?;
        let events = daemon.browse(SERVICE)?;
        let (end, mut found) = (Instant::now() + WAIT, Vec::<Found>::new());
        while let Ok(event) = events.recv_deadline(end) {
            hear(&mut found, event, cluster);
        }
        // Whoever is gone does not hear it; the process may go on.
        let _ = daemon.shutdown();
        Ok(addresses(found))
    }

    /// Announces to `newcomers` all workers of `cluster` that are there, and those that come, in a thread, as long as what it returns lives.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn watch(self, cluster: &ClusterName, newcomers: &Newcomers) -> Result<Watch, DiscoveryError> {
        let daemon = ServiceDaemon::new_with_port(self.port)?;
        let events = daemon.browse(SERVICE)?;
        let (cluster, newcomers) = (cluster.clone(), newcomers.clone());
        let listen = move || {
            let mut found = Vec::<Found>::new();
            // It ends with the daemon.
            while let Ok(event) = events.recv() {
                let Some(worker) = hear(&mut found, event, &cluster) else { continue };
                let is_its = |address: &Address| {
                    address.port == worker.port && worker.places.iter().any(|at| at.address(worker.port) == *address)
                };
                addresses(found.clone()).into_iter().filter(is_its).for_each(|address| newcomers.announce(address));
            }
        };
        let thread = thread::Builder::new().name("discovery".into()).spawn(listen);
        thread.map_err(|error| DiscoveryError(error.to_string()))?;
        Ok(Watch(daemon))
    }
}

/// Takes note of a worker of `cluster` that is told of, if there is room for it.
fn hear(found: &mut Vec<Found>, event: ServiceEvent, cluster: &ClusterName) -> Option<Found> {
    let ServiceEvent::ServiceResolved(service) = event else { return None };
    if service.get_property_val_str("cluster") != Some(&cluster.0) {
        return None;
    }
    // One that is heard on several links is told of more than once.
    found.retain(|other| other.name != service.fullname);
    let worker = Found::of(&service);
    if found.len() < FOUND_MAX {
        found.push(worker.clone());
    }
    Some(worker)
}

/// Workers are listened for as long as this lives.
pub struct Watch(ServiceDaemon);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its thread sees the end of the events.
        let _ = self.0.shutdown();
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Roots that ask later get no answer; a failure changes nothing about it.
        let gone = self.daemon.unregister(&self.name).map(|gone| gone.recv_timeout(Duration::from_millis(200)));
        let _ = (gone, self.daemon.shutdown());
    }
}

/// The name of this machine, without what not every reader takes.
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    name.to_string_lossy().chars().filter(is_plain).take(HOST_MAX).collect()
}

/// A worker that has answered.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    host: String,
    port: u16,
    places: Vec<Place>,
}

/// An address of a worker, and the link on which it was heard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    ip: IpAddr,
    link: u32,
    link_name: String,
}

impl Found {
    fn of(service: &ResolvedService) -> Self {
        let place =
            |ip: IpAddr, link: &mdns_sd::InterfaceId| Place { ip, link: link.index, link_name: link.name.clone() };
        let places = service.addresses.iter().flat_map(|address| match address {
            ScopedIp::V4(v4) => v4.interface_ids().iter().map(|link| place((*v4.addr()).into(), link)).collect(),
            ScopedIp::V6(v6) => vec![place((*v6.addr()).into(), v6.scope_id())],
            _ => Vec::new(),
        });
        Self {
            name: service.fullname.clone(),
            host: service.get_property_val_str("host").unwrap_or_default().into(),
            port: service.port,
            places: places.collect(),
        }
    }
}

impl Place {
    /// How well other machines reach it: the lower, the better.
    fn distance(&self) -> u8 {
        match self.ip {
            ip if ip.is_loopback() => 4,
            IpAddr::V4(ip) if ip.is_link_local() => 2,
            IpAddr::V4(_) => 0,
            // Without a zone, which is a name of this machine, nobody gets there.
            IpAddr::V6(ip) if ip.is_unicast_link_local() => 3,
            IpAddr::V6(_) => 1,
        }
    }

    fn address(&self, port: u16) -> Address {
        let zone = if self.distance() == 3 { format!("%{}", self.link_name) } else { String::new() };
        Address { host: format!("{}{zone}", self.ip), port }
    }
}

/// One address for each worker, in order. Workers call each other by it, so of several links the one counts on which most workers
/// were heard: other addresses, such as those of a bridge of containers, may mean another machine elsewhere.
fn addresses(mut found: Vec<Found>) -> Vec<Address> {
    found.retain(|worker| worker.port > 0 && !worker.places.is_empty());
    let heard = |link: u32| found.iter().filter(|worker| worker.places.iter().any(|place| place.link == link)).count();
    let of = |worker: &Found| {
        let best = |place: &&Place| {
            (place.ip.is_loopback(), usize::MAX - heard(place.link), place.distance(), (*place).clone())
        };
        let place = worker.places.iter().min_by_key(best)?;
        Some((worker.host.clone(), place.ip, worker.port, place.address(worker.port)))
    };
    let mut list: Vec<_> = found.iter().filter_map(of).collect();
    // Who listens on loopback only is out of reach of the others.
    if list.iter().any(|(_, ip, ..)| !ip.is_loopback()) {
        list.retain(|(_, ip, ..)| !ip.is_loopback());
    }
    list.sort_by(|a, b| (&a.0, a.1, a.2).cmp(&(&b.0, b.1, b.2)));
    list.dedup();
    list.into_iter().map(|(.., address)| address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(host: &str, port: u16, places: &[(&str, u32)]) -> Found {
        let place =
            |&(ip, link): &(&str, u32)| Place { ip: ip.parse().unwrap(), link, link_name: format!("eth{link}") };
        Found { name: format!("{host}-{port}"), host: host.into(), port, places: places.iter().map(place).collect() }
    }

    fn texts(found: Vec<Found>) -> Vec<String> {
        addresses(found).iter().map(Address::to_string).collect()
    }

    #[test]
    fn workers_are_ordered_by_host_and_address() {
        let list =
            [("pi-2", 1, "10.0.0.9"), ("pi-1", 7, "10.0.0.20"), ("pi-1", 6, "10.0.0.20"), ("pi-1", 9, "10.0.0.3")];
        let list = list.map(|(host, port, ip)| found(host, port, &[(ip, 2)]));
        let want = ["10.0.0.3:9", "10.0.0.20:6", "10.0.0.20:7", "10.0.0.9:1"];
        assert_eq!(texts(list.to_vec()), want);
        assert_eq!(texts(list.into_iter().rev().collect()), want);
    }

    #[test]
    fn of_several_addresses_the_one_counts_that_others_reach() {
        let here = found(
            "here",
            1,
            &[("172.17.0.1", 5), ("192.168.1.2", 2), ("127.0.0.1", 1), ("fe80::1", 2), ("2001:db8::1", 2)],
        );
        let there = found("there", 1, &[("192.168.1.3", 2), ("fe80::2", 2)]);
        assert_eq!(texts(vec![here, there.clone()]), ["192.168.1.2:1", "192.168.1.3:1"]);
        let alone = |places: &[(&str, u32)]| texts(vec![found("a", 1, places)]);
        assert_eq!(alone(&[("fe80::2", 3), ("2001:db8::2", 3)]), ["[2001:db8::2]:1"]);
        assert_eq!(alone(&[("fe80::2", 3), ("::1", 1)]), ["[fe80::2%eth3]:1"]);
        assert_eq!(alone(&[("127.0.0.1", 1)]), ["127.0.0.1:1"]);
        assert_eq!(alone(&[]), [""; 0]);
        assert_eq!(texts(vec![found("local", 1, &[("127.0.0.1", 1)]), there]), ["192.168.1.3:1"]);
    }

    #[test]
    fn names_of_clusters_are_plain() {
        assert_eq!("kitchen-2".parse(), Ok(ClusterName("kitchen-2".into())));
        for name in ["", "a b", "é", &"x".repeat(64)] {
            assert!(name.parse::<ClusterName>().is_err(), "{name}");
        }
    }
}
