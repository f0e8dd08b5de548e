//! How full a volume is.

use std::path::Path;

/// Space of a volume, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Space of the volume that holds `path`; `None` when that is not known.
pub fn space(path: &Path) -> Option<Space> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Some(Space { free: bytes(stat.blocks_available()), total: bytes(stat.blocks()) })
}

impl Space {
    /// Whether less than `reserve` is free; of a small volume, less than a twentieth.
    pub fn nearly_full(self, reserve: u64) -> bool {
        self.free < reserve.min(self.total / 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_of_a_small_volume_is_small() {
        let gib = 1 << 30;
        assert!(Space { free: gib - 1, total: 1000 * gib }.nearly_full(gib));
        assert!(!Space { free: gib, total: 1000 * gib }.nearly_full(gib));
        assert!(!Space { free: gib / 10, total: gib }.nearly_full(gib));
        assert!(Space { free: gib / 100, total: gib }.nearly_full(gib));
        assert!(!Space { free: 0, total: gib }.nearly_full(0), "no reserve is wanted");
        assert!(space(Path::new("/")).is_some_and(|s| s.total > 0));
        assert_eq!(space(Path::new("/no/such/place")), None);
    }
}
