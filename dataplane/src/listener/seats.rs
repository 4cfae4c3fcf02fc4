//! How many connections are open, in total and from one address. A seat is given back when it is dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The seats of a process. Clones share them.
#[derive(Clone)]
pub struct Seats {
    taken: Arc<Mutex<Taken>>,
    total: usize,
    per_address: usize,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One open connection.
pub struct Seat {
    seats: Seats,
    address: IpAddr,
}

impl Seats {
    pub fn new(total: usize, per_address: usize) -> Self {
        Self { taken: Arc::default(), total, per_address }
    }

    /// A seat for a connection from `address`, if there is one.
    pub fn take(&self, address: IpAddr) -> Option<Seat> {
        let address = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.total {
            return None;
        }
        let here = taken.by_address.entry(address).or_insert(0);
        if *here >= self.per_address {
            return None;
        }
        *here += 1;
        taken.total += 1;
        Some(Seat { seats: self.clone(), address })
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

/// What counts as one address: IPv6 hosts own a /64 and could use each address of it once.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Seats;

    #[test]
    fn seats_run_out_per_address_and_in_total_and_come_back() {
        let seats = Seats::new(3, 2);
        let (a, b, same_64) = ("10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let first = seats.take(a).unwrap();
        let _second = seats.take(a).unwrap();
        assert!(seats.take(a).is_none(), "two per address");
        let _third = seats.take(b).unwrap();
        assert!(seats.take(same_64).is_none(), "three in total");
        drop(first);
        assert_eq!(seats.open(), 2);
        assert!(seats.take(same_64).is_some());
    }
}
