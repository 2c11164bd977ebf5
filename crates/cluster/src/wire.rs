//! The wire format: numbers are LEB128, texts begin with their length.

/// All their lives fit into one datagram, and so does a list of all their names.
pub(crate) use cinchona_policy::cluster::members::MOST_NODES;

use crate::config::{LONGEST_NAME, is_name};
use std::{
    hash::Hasher,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// The most that UDP carries over IPv4, less the seal.
pub(crate) const LARGEST: usize = 65_507;

/// The most pairs that a node publishes.
pub(crate) const MOST_PAIRS: usize = 96;
/// `id@generation` of [`MOST_NODES`] nodes.
pub(crate) const LONGEST_VALUE: usize = MOST_NODES * (LONGEST_NAME + 18);
/// The most bytes of a name with its length.
const LONGEST_KEY: usize = LONGEST_NAME + 8;

const MAGIC: [u8; 3] = [b'c', b'g', 1];

/// The messages of nodes. The first three are push and pull (Scuttlebutt: van Renesse et al.,
/// 2008): the sender's digest; what the sender lacks, with the answerer's digest; what the answerer
/// lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Ask {
        digest: Vec<Summary>,
    },
    Answer {
        digest: Vec<Summary>,
        updates: Vec<Update>,
    },
    Rest {
        updates: Vec<Update>,
    },
    /// The receiver asked a node of another cluster.
    Stranger,
    /// The sender has this id as well, and has run for so many heartbeats.
    Namesake {
        id: Arc<str>,
        generation: u64,
        heartbeat: u64,
    },
    /// An operator has forgotten this life.
    Forget {
        id: Arc<str>,
        generation: u64,
    },
}

/// How far a node knows another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) id: Arc<str>,
    /// Identifies a life.
    pub(crate) generation: u64,
    /// Rises while the node lives.
    pub(crate) heartbeat: u64,
    /// The time since that rose.
    pub(crate) age: Duration,
    /// The version of its last change.
    pub(crate) version: u64,
    /// A checksum of all its pairs.
    pub(crate) check: u32,
}

/// What a node publishes, from some version on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) id: Arc<str>,
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
    pub(crate) age: Duration,
    /// The address at which it receives gossip.
    pub(crate) address: SocketAddr,
    /// A node that knows less than this version cannot use the update.
    pub(crate) from: u64,
    /// Pairs without a later version than this are removed.
    pub(crate) floor: u64,
    /// Ordered by version.
    pub(crate) pairs: Vec<Pair>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) version: u64,
}

/// Ages are sent in steps of this, rounded up: so no life grows younger in transit.
const STEP: Duration = Duration::from_millis(100);

struct Reader<'a>(&'a [u8]);

/// A datagram without its seal.
pub(crate) fn encode(cluster_id: &str, message: &Message) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_text(&mut out, cluster_id);
    match message {
        Message::Ask { digest } => {
            out.push(0);
            put_all(&mut out, digest, put_summary);
        }
        Message::Answer { digest, updates } => {
            out.push(1);
            put_all(&mut out, digest, put_summary);
            put_all(&mut out, updates, put_update);
        }
        Message::Rest { updates } => {
            out.push(2);
            put_all(&mut out, updates, put_update);
        }
        Message::Stranger => out.push(3),
        Message::Namesake { id, generation, heartbeat } => {
            out.push(4);
            put_text(&mut out, id);
            put_number(&mut out, *generation);
            put_number(&mut out, *heartbeat);
        }
        Message::Forget { id, generation } => {
            out.push(5);
            put_text(&mut out, id);
            put_number(&mut out, *generation);
        }
    }
    out
}

/// For the fuzzer: whether a readable datagram, written again, reads as the same.
pub fn is_read_again(datagram: &[u8]) -> bool {
    let Some((cluster_id, message)) = decode(datagram) else { return true };
    let again = decode(&encode(&cluster_id, &message));
    again.is_some_and(|again| again == (cluster_id, message))
}

/// The cluster and the message of a datagram; `None` if it is not gossip.
pub(crate) fn decode(datagram: &[u8]) -> Option<(String, Message)> {
    let mut reader = Reader(datagram);
    if reader.bytes(MAGIC.len())? != MAGIC {
        return None;
    }
    let cluster_id = reader.name()?.to_owned();
    let message = match reader.byte()? {
        0 => Message::Ask { digest: reader.all(Reader::summary)? },
        1 => Message::Answer {
            digest: reader.all(Reader::summary)?,
            updates: reader.all(Reader::update)?,
        },
        2 => Message::Rest { updates: reader.all(Reader::update)? },
        3 => Message::Stranger,
        4 => Message::Namesake {
            id: reader.name()?.into(),
            generation: reader.number()?,
            heartbeat: reader.number()?,
        },
        5 => Message::Forget { id: reader.name()?.into(), generation: reader.number()? },
        _ => return None,
    };
    reader.0.is_empty().then_some((cluster_id, message))
}

/// The most bytes that it takes.
pub(crate) fn most_bytes(summary: &Summary) -> usize {
    1 + summary.id.len() + 4 * 10 + 4
}

fn put_all<T>(out: &mut Vec<u8>, all: &[T], put: fn(&mut Vec<u8>, &T)) {
    put_number(out, all.len() as u64);
    all.iter().for_each(|one| put(out, one));
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_age(out: &mut Vec<u8>, age: Duration) {
    put_number(out, u64::try_from(age.as_millis().div_ceil(STEP.as_millis())).unwrap_or(u64::MAX));
}

fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    let Summary { id, generation, heartbeat, age, version, check } = summary;
    put_text(out, id);
    put_number(out, *generation);
    put_number(out, *heartbeat);
    put_age(out, *age);
    put_number(out, *version);
    out.extend_from_slice(&check.to_le_bytes());
}

fn put_update(out: &mut Vec<u8>, update: &Update) {
    let Update { id, generation, heartbeat, age, address, from, floor, pairs } = update;
    put_text(out, id);
    put_number(out, *generation);
    put_number(out, *heartbeat);
    put_age(out, *age);
    put_address(out, *address);
    put_number(out, *from);
    put_number(out, *floor);
    put_all(out, pairs, Pair::put);
}

fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}

// === impl Update ===

impl Update {
    /// The most bytes that it takes without its pairs.
    pub(crate) fn most_bytes(&self) -> usize {
        1 + self.id.len() + 6 * 10 + 19
    }
}

// === impl Pair ===

impl Pair {
    fn put(out: &mut Vec<u8>, pair: &Self) {
        put_text(out, &pair.key);
        put_text(out, &pair.value);
        put_number(out, pair.version);
    }

    /// The most bytes that a pair takes.
    pub(crate) fn most_bytes(key: &str, value: &str) -> usize {
        key.len() + value.len() + 2 * 3 + 10
    }

    /// Differs where any of these differs.
    pub(crate) fn check(key: &str, value: &str, version: u64) -> u32 {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        hasher.write(key.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(value.as_bytes());
        hasher.write(&version.to_le_bytes());
        let hash = hasher.finish();
        (hash ^ (hash >> 32)) as u32
    }
}

/// FNV-1a: the same on every machine; the standard library's hashers need not be.
struct Fnv(u64);

// === impl Fnv ===

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self, longest: usize) -> Option<&'a str> {
        let size = usize::try_from(self.number()?).ok().filter(|size| *size <= longest)?;
        std::str::from_utf8(self.bytes(size)?).ok()
    }

    fn name(&mut self) -> Option<&'a str> {
        self.text(LONGEST_NAME).filter(|name| is_name(name))
    }

    fn age(&mut self) -> Option<Duration> {
        let steps = self.number()?;
        Some(STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX)))
    }

    fn all<T>(&mut self, one: fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number().filter(|count| *count <= MOST_NODES as u64)?;
        (0..count).map(|_| one(self)).collect()
    }

    fn summary(&mut self) -> Option<Summary> {
        Some(Summary {
            id: self.name()?.into(),
            generation: self.number()?,
            heartbeat: self.number()?,
            age: self.age()?,
            version: self.number()?,
            check: u32::from_le_bytes(self.array()?),
        })
    }

    fn update(&mut self) -> Option<Update> {
        Some(Update {
            id: self.name()?.into(),
            generation: self.number()?,
            heartbeat: self.number()?,
            age: self.age()?,
            address: self.address()?,
            from: self.number()?,
            floor: self.number()?,
            pairs: self.all(Self::pair).filter(|pairs| pairs.len() <= MOST_PAIRS)?,
        })
    }

    fn pair(&mut self) -> Option<Pair> {
        let (key, value) = (self.text(LONGEST_KEY)?.to_owned(), self.text(LONGEST_VALUE)?);
        Some(Pair { key, value: value.to_owned(), version: self.number()? })
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip: IpAddr = match self.byte()? {
            4 => Ipv4Addr::from(self.array::<4>()?).into(),
            6 => Ipv6Addr::from(self.array::<16>()?).into(),
            _ => return None,
        };
        let port = u16::from_le_bytes(self.array()?);
        Some(SocketAddr::new(ip, port)).filter(|address| port > 0 && !address.ip().is_unspecified())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn name() -> impl Strategy<Value = Arc<str>> {
        "[A-Za-z0-9._:-]{1,64}".prop_map(Arc::from)
    }

    fn steps() -> impl Strategy<Value = Duration> {
        any::<u32>().prop_map(|steps| STEP.saturating_mul(steps))
    }

    fn summary() -> impl Strategy<Value = Summary> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
        (name(), steps(), numbers).prop_map(|(id, age, numbers)| {
            let (generation, heartbeat, version, check) = numbers;
            Summary { id, generation, heartbeat, age, version, check }
        })
    }

    fn update() -> impl Strategy<Value = Update> {
        let pair = ("[a-z/]{0,20}", ".{0,40}", any::<u64>());
        let pair = pair.prop_map(|(key, value, version)| Pair { key, value, version });
        let address = (any::<bool>(), any::<[u8; 16]>(), 1_u16..).prop_map(|(is_v4, ip, port)| {
            let v4 = [ip[0] | 1, ip[1], ip[2], ip[3]];
            let v6 = ip.map(|byte| byte | 1);
            if is_v4 { SocketAddr::from((v4, port)) } else { SocketAddr::from((v6, port)) }
        });
        let numbers = any::<[u64; 4]>();
        (summary(), numbers, address, vec(pair, 0..8)).prop_map(|(of, numbers, address, pairs)| {
            let [from, floor, ..] = numbers;
            let Summary { id, generation, heartbeat, age, .. } = of;
            Update { id, generation, heartbeat, age, address, from, floor, pairs }
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let digest = || vec(summary(), 0..5);
        let updates = || vec(update(), 0..5);
        prop_oneof![
            digest().prop_map(|digest| Message::Ask { digest }),
            (digest(), updates()).prop_map(|(digest, updates)| Message::Answer { digest, updates }),
            updates().prop_map(|updates| Message::Rest { updates }),
            Just(Message::Stranger),
            (name(), any::<[u64; 2]>()).prop_map(|(id, [generation, heartbeat])| {
                Message::Namesake { id, generation, heartbeat }
            }),
            (name(), any::<u64>()).prop_map(|(id, generation)| Message::Forget { id, generation }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_what_is_heard(message in message()) {
            let datagram = encode("c", &message);
            prop_assert_eq!(decode(&datagram), Some(("c".into(), message)));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..200), is_framed: bool) {
            if is_framed {
                bytes.splice(0..0, encode("c", &Message::Stranger).into_iter().take(5));
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn what_is_cut_or_longer_is_no_gossip(message in message(), cut in 0.0..1.0) {
            let mut datagram = encode("c", &message);
            let size = (datagram.len() as f64 * cut) as usize;
            prop_assert_eq!(decode(&datagram[..size]), None);
            datagram.push(0);
            prop_assert_eq!(decode(&datagram), None);
        }

        #[test]
        fn sizes_are_upper_bounds(update in update(), summary in summary()) {
            let mut out = Vec::new();
            put_summary(&mut out, &summary);
            prop_assert!(out.len() <= most_bytes(&summary));
            out.clear();
            put_update(&mut out, &update);
            let pairs = update.pairs.iter().map(|pair| Pair::most_bytes(&pair.key, &pair.value));
            prop_assert!(out.len() <= update.most_bytes() + pairs.sum::<usize>());
        }
    }

    #[test]
    fn a_count_that_is_beyond_the_datagram_allocates_nothing() {
        let mut datagram = encode("c", &Message::Ask { digest: Vec::new() });
        datagram.pop();
        put_number(&mut datagram, u64::MAX);
        assert_eq!(decode(&datagram), None);
    }

    #[test]
    fn an_age_is_never_rounded_down() {
        let mut out = Vec::new();
        put_age(&mut out, Duration::from_millis(101));
        assert_eq!(Reader(&out).age(), Some(2 * STEP));
    }
}
