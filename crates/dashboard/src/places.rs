//! A limit of places in all and per client, in which the newest always gets one.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Places, limited per client. A new connection always gets one: where all are taken, the client
/// with the most connections loses its oldest one without a request, or else its oldest.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_one: usize,
    held: Mutex<Held>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// By number: the oldest first.
    all: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    client: IpAddr,
    has_asked: bool,
    _displace: oneshot::Sender<()>,
}

// === impl Places ===

impl Places {
    /// `all` places, of which `each` client has at most so many.
    pub(crate) fn new((most, most_of_one): (usize, usize)) -> Arc<Self> {
        Arc::new(Self { most, most_of_one, held: Mutex::default() })
    }

    /// A place for a client at that address.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Place {
        let (displace, displaced) = oneshot::channel();
        let client = client(address);
        let mut held = self.held();
        if held.of(client) >= self.most_of_one {
            held.displace(client);
        } else if held.all.len() >= self.most {
            held.displace_any();
        }
        let number = held.next;
        held.next += 1;
        held.all.insert(number, Holder { client, has_asked: false, _displace: displace });
        drop(held);
        Place { places: self.clone(), number, displaced }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn of(&self, client: IpAddr) -> usize {
        self.all.values().filter(|holder| holder.client == client).count()
    }

    fn displace(&mut self, client: IpAddr) {
        let own = self.all.iter().filter(|(_, holder)| holder.client == client);
        let first = own.min_by_key(|(number, holder)| (holder.has_asked, **number));
        if let Some(number) = first.map(|(number, _)| *number) {
            self.all.remove(&number);
        }
    }

    fn displace_any(&mut self) {
        let mut counts: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        for (number, holder) in self.all.iter().rev() {
            let count = counts.entry(holder.client).or_default();
            *count = (count.0 + 1, u64::MAX - number);
        }
        if let Some((client, _)) = counts.into_iter().max_by_key(|(_, count)| *count) {
            self.displace(client);
        }
    }
}

// === impl Place ===

impl Place {
    /// Waits until the place is given to another connection.
    pub(crate) async fn displaced(&mut self) {
        _ = (&mut self.displaced).await;
    }

    /// The number that identifies it in [`Places::asked`].
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }
}

impl Places {
    /// The connection in that place has sent a request: it keeps the place longer than one that has
    /// not.
    pub(crate) fn asked(&self, number: u64) {
        if let Some(holder) = self.held().all.get_mut(&number) {
            holder.has_asked = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held().all.remove(&self.number);
    }
}

/// The owner of an address: of IPv6, its /64.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_displaced(place: &mut Place) -> bool {
        place.displaced.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    fn at(n: u64) -> IpAddr {
        format!("10.0.0.{n}").parse().unwrap()
    }

    proptest! {
        // catalogue: S-E18
        #[test]
        fn every_new_connection_has_a_place_and_no_limit_is_exceeded(
            steps in prop::collection::vec((0..6_u64, any::<Option<prop::sample::Index>>()), 0..300)
        ) {
            let places = Places::new((20, 8));
            let mut held: Vec<Place> = Vec::new();
            for (comes, leaves) in steps {
                if let Some(leaves) = leaves.filter(|_| !held.is_empty()) {
                    held.swap_remove(leaves.index(held.len()));
                }
                let mut new = places.take(at(comes));
                prop_assert!(!is_displaced(&mut new));
                held.push(new);
                held.retain_mut(|place| !is_displaced(place));
                prop_assert_eq!(held.len(), places.held().all.len());
                prop_assert!(held.len() <= 20 && (0..6).all(|n| places.held().of(at(n)) <= 8));
            }
            drop(held);
            prop_assert!(places.held().all.is_empty());
        }
    }

    #[test]
    fn a_place_is_taken_from_the_client_with_the_most_without_a_request() {
        let places = Places::new((6, 4));
        let mut own = places.take(at(1));
        let mut others: Vec<_> = (0..5).map(|n| places.take(at(2 + n / 3))).collect();
        places.asked(others[0].number());
        let mut new = places.take(at(3));
        let displaced: Vec<_> = others.iter_mut().map(is_displaced).collect();
        assert_eq!(displaced, [false, true, false, false, false]);
        assert!(!is_displaced(&mut own) && !is_displaced(&mut new));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_its_ipv4() {
        let of = |address: &str| client(address.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
