//! Token buckets by client and namespace, in bounded memory: one number per client that is not at rest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use hopyard_contract::Name;

/// Clients that are told apart at once; more share one bucket until others have come to rest.
pub(super) const CLIENTS: usize = 16 * 1024;

/// Whose bucket it is. A door on the bus sees no address: there a namespace has one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    address: Option<IpAddr>,
    namespace: Option<Name>,
}

impl Client {
    /// A client of a namespace; addresses of one IPv6 network of 64 bits are one client.
    pub(super) fn new(address: Option<IpAddr>, namespace: &Name) -> Self {
        let address = address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
            v4 => v4,
        });
        Self { address, namespace: Some(namespace.clone()) }
    }

    /// All who came when there was no room for another one.
    const fn crowd() -> Self {
        Self { address: None, namespace: None }
    }
}

/// Buckets that fill at one rate. Each is kept as the time at which it will be full again (GCRA).
#[derive(Debug)]
pub(super) struct Buckets {
    /// Time in which one token comes back.
    interval: Duration,
    /// Time in which an empty bucket fills.
    depth: Duration,
    full_at: HashMap<Client, Duration>,
}

impl Buckets {
    /// Buckets with room for `burst` tokens that get `rate` of them per second; `None` for no limit.
    pub(super) fn new(rate: u32, burst: u32) -> Option<Self> {
        if rate == 0 {
            return None;
        }
        let interval = Duration::from_secs(1) / rate;
        Some(Self { interval, depth: interval * burst.max(1), full_at: HashMap::new() })
    }

    /// Takes tokens at `now` (any clock that only goes on), or says how long to wait for them.
    ///
    /// More tokens than a bucket holds can be had from a full one.
    pub(super) fn take(&mut self, client: &Client, tokens: u32, now: Duration) -> Result<(), Duration> {
        let crowd = Client::crowd();
        let client = if self.full_at.contains_key(client) || self.has_room(now) { client } else { &crowd };
        let before = self.full_at.get(client).copied().unwrap_or_default().max(now);
        let cost = (self.interval * tokens).min(self.depth);
        let after = before + cost;
        let wait = after.saturating_sub(now + self.depth);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_at.insert(client.clone(), after);
        Ok(())
    }

    /// Whether one more client can be told apart; those at rest are forgotten first.
    fn has_room(&mut self, now: Duration) -> bool {
        if self.full_at.len() >= CLIENTS {
            self.full_at.retain(|_, at| *at > now);
        }
        self.full_at.len() < CLIENTS
    }

    /// Clients that are not at rest.
    pub(super) fn len(&self) -> usize {
        self.full_at.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn client(address: &str) -> Client {
        Client::new(Some(address.parse().unwrap()), &Name::default_namespace())
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::new(10, 20).unwrap();
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        for _ in 0..20 {
            assert_eq!(buckets.take(&one, 1, SECOND), Ok(()));
        }
        assert_eq!(buckets.take(&one, 1, SECOND), Err(SECOND / 10), "and says when the next token is there");
        assert_eq!(buckets.take(&other, 20, SECOND), Ok(()), "one client takes nothing from another");
        assert_eq!(buckets.take(&one, 1, SECOND + SECOND / 10), Ok(()));
        assert_eq!(buckets.take(&one, 2, SECOND + SECOND / 10), Err(SECOND / 5));
        assert_eq!(buckets.take(&one, 20, 4 * SECOND), Ok(()), "at rest it is full again");
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let mut buckets = Buckets::new(1, 5).unwrap();
        let one = client("10.0.0.1");
        assert_eq!(buckets.take(&one, 4, SECOND), Ok(()));
        for _ in 0..100 {
            assert_eq!(buckets.take(&one, 5, SECOND), Err(4 * SECOND));
        }
        assert_eq!(buckets.take(&one, 1, SECOND), Ok(()));
    }

    #[test]
    fn a_body_larger_than_the_bucket_is_taken_from_a_full_one() {
        let mut buckets = Buckets::new(10, 10).unwrap();
        let one = client("10.0.0.1");
        assert_eq!(buckets.take(&one, 500, SECOND), Ok(()));
        assert_eq!(buckets.take(&one, 1, SECOND), Err(SECOND / 10));
        assert!(Buckets::new(0, 10).is_none(), "no rate, no limit");
    }

    #[test]
    fn clients_are_told_apart_by_network_and_namespace() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), Client::new(Some("10.0.0.1".parse().unwrap()), &Name::literal("other")));
    }

    #[test]
    fn any_number_of_clients_takes_bounded_memory() {
        let mut buckets = Buckets::new(10, 10).unwrap();
        let nth = |n: u32| Client::new(Some(IpAddr::from(n.to_be_bytes())), &Name::default_namespace());
        for n in 0..CLIENTS as u32 {
            assert_eq!(buckets.take(&nth(n), 10, SECOND), Ok(()));
        }
        // Those that find no room share one bucket, which is empty soon.
        assert_eq!(buckets.take(&nth(1 << 20), 10, SECOND), Ok(()));
        assert_eq!(buckets.take(&nth(1 << 21), 1, SECOND), Err(SECOND / 10));
        assert!(buckets.len() <= CLIENTS + 1);
        assert_eq!(buckets.take(&nth(1 << 21), 10, 3 * SECOND), Ok(()));
        assert!(buckets.len() <= 2, "who is at rest is forgotten");
    }
}
