//! Small volumes of a stack's own, so that a disk can be full. They need the right to mount, which `make chaos` gives.

use std::path::{Path, PathBuf};

use super::programs::run;

/// Room of a volume: enough that a long storm does not fill that of an embedded store by itself.
const ROOM: &str = "size=640m";

/// A directory on a volume of its own.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
}

impl Volume {
    /// Makes a volume and mounts it at a directory, which is made as well.
    pub fn at(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let place = path.display().to_string();
        let output = run("mount", &["-t", "tmpfs", "-o", ROOM, "hopyard-it", &place], Path::new("/"), &[]);
        assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a process that is being ended may still have a file open.
        run("umount", &["-l", &self.path.display().to_string()], Path::new("/"), &[]);
    }
}
