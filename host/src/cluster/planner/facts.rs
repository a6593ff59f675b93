//! From what is known of the nodes of a live cluster to what the cost model wants.

use super::published::GIGABIT;
use crate::net::native::Called;
use dair_core::plan::cost::{Link, Machine};

/// What was measured of a node, or what it says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// Bytes of weights per second that it multiplies with one token; 0 if unknown.
    pub bytes_per_s: f64,
    /// Bytes of memory that it may take.
    pub memory_bytes: u64,
    /// Bytes per second that its disk is read with; 0 if unknown.
    pub disk_bytes_per_s: f64,
    /// Seconds of a message from the root to it and back; `None` of the root, and where it was not measured.
    pub round_trip_s: Option<f64>,
    /// Bytes per second from the root to it; `None` of the root, and where it was not measured.
    pub link_bytes_per_s: Option<f64>,
}

impl Facts {
    /// What a worker says of itself, and how far away it is.
    pub fn of(worker: &Called) -> Self {
        let Called { have, way, .. } = worker;
        Self {
            bytes_per_s: have.speed as f64,
            memory_bytes: have.memory,
            disk_bytes_per_s: have.disk_speed as f64,
            round_trip_s: Some(way.round_trip.as_secs_f64()),
            link_bytes_per_s: Some(way.bytes_per_s),
        }
    }
}

/// The machines of a cluster, the root's first.
///
/// The model knows a link for each node, measured are ways between the root and a worker. So the root is given the shortest
/// round trip and the widest link of all ways, and a worker what then makes its way to the root as long as measured; between
/// workers, this is the way by the root less the root's own part. What was not measured is taken for gigabit Ethernet; a speed
/// that is not known, for that of the root.
pub fn machines(root: &Facts, workers: &[Facts]) -> Vec<Machine> {
    let round_trips = || workers.iter().map(|worker| worker.round_trip_s.unwrap_or(GIGABIT.round_trip_s));
    let widths = || workers.iter().map(|worker| worker.link_bytes_per_s.unwrap_or(GIGABIT.bytes_per_s));
    let own = Link {
        round_trip_s: round_trips().reduce(f64::min).unwrap_or(GIGABIT.round_trip_s),
        bytes_per_s: widths().reduce(f64::max).unwrap_or(GIGABIT.bytes_per_s),
    };
    let machine = |facts: &Facts, link| Machine {
        bytes_per_s: if facts.bytes_per_s > 0.0 { facts.bytes_per_s } else { root.bytes_per_s },
        memory_bytes: facts.memory_bytes,
        disk_bytes_per_s: facts.disk_bytes_per_s,
        link,
    };
    let links = round_trips()
        .zip(widths())
        .map(|(round_trip_s, bytes_per_s)| Link { round_trip_s: 2.0 * round_trip_s - own.round_trip_s, bytes_per_s });
    let workers = workers.iter().zip(links).map(|(facts, link)| machine(facts, link));
    [machine(root, own)].into_iter().chain(workers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_root_and_worker_is_as_measured() {
        let fact = |round_trip_s, link_bytes_per_s| Facts {
            bytes_per_s: 1e9,
            round_trip_s,
            link_bytes_per_s,
            ..Facts::default()
        };
        let workers = [fact(Some(1e-3), Some(1e8)), fact(Some(2e-4), Some(1e9)), fact(None, None)];
        let all = machines(&fact(None, None), &workers);
        let way = |a: usize, b: usize| {
            let [a, b] = [a, b].map(|node| all[node].link);
            ((a.round_trip_s + b.round_trip_s) / 2.0, a.bytes_per_s.min(b.bytes_per_s))
        };
        let near = |(seconds, width): (f64, f64), wanted: (f64, f64)| {
            assert!((seconds - wanted.0).abs() < 1e-9 && width == wanted.1, "{seconds} s, {width} bytes per second");
        };
        near(way(0, 1), (1e-3, 1e8));
        near(way(0, 2), (2e-4, 1e9));
        near(way(0, 3), (GIGABIT.round_trip_s, GIGABIT.bytes_per_s));
        near(way(1, 2), (1e-3 + 2e-4 - GIGABIT.round_trip_s, 1e8));
    }

    #[test]
    fn a_speed_that_is_not_known_is_the_roots() {
        let root = Facts { bytes_per_s: 5e9, memory_bytes: 7, ..Facts::default() };
        let all = machines(&root, &[Facts { memory_bytes: 8, ..Facts::default() }]);
        assert_eq!(
            all.iter().map(|machine| (machine.bytes_per_s, machine.memory_bytes)).collect::<Vec<_>>(),
            [(5e9, 7), (5e9, 8)]
        );
        assert_eq!(machines(&root, &[]).len(), 1);
    }
}
