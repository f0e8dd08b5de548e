//! Random pauses, so that those who were interrupted together do not come back together.

use std::time::Duration;

/// A random pause below `ceiling` (full jitter); zero for a ceiling of zero.
pub fn jitter(ceiling: Duration) -> Duration {
    let millis = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { Duration::ZERO } else { Duration::from_millis(random() % millis) }
}

/// A random pause from half of `pause` to one and a half of it: for loops that try again at a steady pace.
pub fn around(pause: Duration) -> Duration {
    pause / 2 + jitter(pause)
}

fn random() -> u64 {
    // The low half of a version 4 id has 62 random bits.
    uuid::Uuid::new_v4().as_u64_pair().1 & (u64::MAX >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_stay_below_their_ceiling() {
        let pauses: std::collections::BTreeSet<_> = (0..64).map(|_| jitter(Duration::from_secs(60))).collect();
        assert!(pauses.len() > 32, "{pauses:?}");
        assert!(pauses.iter().all(|p| *p < Duration::from_secs(60)));
        assert_eq!(jitter(Duration::ZERO), Duration::ZERO);
        for _ in 0..64 {
            let pause = around(Duration::from_millis(300));
            assert!((150..450).contains(&pause.as_millis()), "{pause:?}");
        }
    }
}
