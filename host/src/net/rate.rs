//! How many connections an address may make: so many at once, and so many per second.
//!
//! Who makes more sees them end at once, before there is a thread or a handshake for them. A cluster needs few: a root two for each
//! of its sessions, every other worker one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Connections of one address that are taken at once.
const BURST: u32 = 256;
/// After so many, one in this time.
const STEP: Duration = Duration::from_millis(16);
/// Addresses that are remembered.
const ADDRESSES: usize = 1024;

/// What addresses have used up of what they may.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// Until when each would be busy if a connection took it [`STEP`].
    busy: HashMap<IpAddr, Instant>,
}

impl Rates {
    /// Whether a connection that comes `now` from `ip` is taken.
    pub(super) fn takes(&mut self, ip: IpAddr, now: Instant) -> bool {
        if self.busy.len() >= ADDRESSES {
            self.busy.retain(|_, until| *until > now);
        }
        if self.busy.len() >= ADDRESSES
            && let Some(calmest) = self.busy.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip)
        {
            self.busy.remove(&calmest);
        }
        let until = self.busy.entry(network(ip)).or_insert(now);
        *until = (*until).max(now);
        if *until - now > STEP * (BURST - 1) {
            return false;
        }
        *until += STEP;
        true
    }
}

/// A machine has a whole IPv6 network of addresses.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_flood_is_cut_to_its_rate_and_disturbs_no_other_address() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let flood = |rates: &mut Rates, now| (0..10_000).filter(|_| rates.takes(ip("10.0.0.1"), now)).count();
        assert_eq!(flood(&mut rates, start), BURST as usize);
        assert!(rates.takes(ip("10.0.0.2"), start));
        assert_eq!(flood(&mut rates, start + 5 * STEP), 5);
        assert_eq!(flood(&mut rates, start + Duration::from_secs(3600)), BURST as usize, "all is forgotten");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let taken = (0..1000u128).filter(|n| rates.takes(Ipv6Addr::from_bits((0xfd00 << 112) + n).into(), now)).count();
        assert_eq!(taken, BURST as usize);
        assert!(rates.takes(ip("fd00:0:0:1::1"), now));
        let mapped = (0..1000).filter(|_| rates.takes(ip("::ffff:10.0.0.1"), now)).count();
        assert_eq!((mapped, rates.takes(ip("10.0.0.1"), now)), (BURST as usize, false));
    }

    #[test]
    fn memory_has_a_limit_and_keeps_the_busiest() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        while rates.takes(ip("10.0.0.1"), now) {}
        for n in 0..5000u32 {
            assert!(rates.takes(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).into(), now));
        }
        assert!(rates.busy.len() <= ADDRESSES);
        assert!(!rates.takes(ip("10.0.0.1"), now));
    }
}
