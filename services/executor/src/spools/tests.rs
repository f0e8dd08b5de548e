//! What the next attempt gets of the one before, and what it does not.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use hopyard_contract::{Name, RunId};
use nix::fcntl::OFlag;

use super::*;

struct Host {
    dir: tempfile::TempDir,
    spools: Spools,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let spools = Spools::open(dir.path().join("spool"), 2).expect("opened");
        Self { dir, spools }
    }

    fn take(&self, n: u32) -> PathBuf {
        self.spools.take(&attempt(n), format!("{{\"n\":{n}}}").as_bytes(), (n == 1).then_some("exit 1")).expect("taken");
        self.spools.dir(&attempt(n))
    }

    /// Waits until the file system has another time than when something was last changed in a directory: it may go in steps.
    fn until_later_than(&self, dir: &Path) {
        let changed = |path: &Path| fs::metadata(path).map(|meta| (meta.ctime(), meta.ctime_nsec())).expect("there");
        let (made, probe) = (changed(dir), self.dir.path().join("probe"));
        while {
            fs::write(&probe, "x").expect("written");
            changed(&probe) == made
        } {}
    }

    /// Inodes of everything in a directory, by name.
    fn inodes(dir: &Path) -> HashMap<String, u64> {
        let entries = fs::read_dir(dir).expect("directory").map(|entry| entry.expect("entry"));
        entries.map(|entry| (entry.file_name().into_string().expect("text"), entry.metadata().expect("there").ino())).collect()
    }
}

fn attempt(n: u32) -> AttemptId {
    AttemptId { run: RunId::from_uuid(uuid::Uuid::from_u128(7)), step: Name::literal("step"), n }
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path).expect("text")
}

#[test]
fn what_nobody_touched_is_for_the_next_attempt() {
    let host = Host::new();
    let first = host.take(1);
    write_over(&first.join(FINISHED_FILE), b"{\"long\":\"and longer\"}", PRIVATE).expect("written");
    let was = Host::inodes(&first);
    host.spools.give_back(&first).expect("given back");
    assert!(!first.exists());

    let second = host.take(2);
    assert_eq!(Host::inodes(&second), was);
    assert_eq!(text(second.join(GRANT_FILE)), "{\"n\":2}");
    // Nothing of the first attempt can be read.
    assert_eq!(text(second.join(FINISHED_FILE)), "\n");
    assert_eq!(text(second.join(SCRIPT_FILE)), "\n");
}

#[test]
fn what_a_step_changed_is_not() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 11] = [
        (HOME, |dir| fs::write(dir.join("home/.profile"), "x").expect("written")),
        (TMP, |dir| {
            fs::write(dir.join("tmp/x"), "x").expect("written");
            fs::remove_file(dir.join("tmp/x")).expect("removed");
        }),
        (TMP, |dir| fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o500)).expect("changed")),
        (WORK, |dir| fs::create_dir(dir.join("work/deep")).expect("made")),
        (WORK, |dir| {
            fs::remove_dir(dir.join("work")).expect("removed");
            symlink("/", dir.join("work")).expect("linked");
        }),
        (OUTPUT_FILE, |dir| fs::write(dir.join("output"), "a=b\n").expect("written")),
        (OUTPUT_FILE, |dir| fs::set_permissions(dir.join("output"), fs::Permissions::from_mode(0o644)).expect("changed")),
        (SPOOL_FILE, |dir| fs::write(dir.join("log.spool"), "frame").expect("written")),
        (GRANT_FILE, |dir| fs::hard_link(dir.join("grant.json"), dir.join("again")).expect("linked")),
        (SCRIPT_FILE, |dir| {
            fs::remove_file(dir.join("script")).expect("removed");
            symlink("/etc/passwd", dir.join("script")).expect("linked");
        }),
        (EXIT_FILE, |dir| {
            fs::create_dir(dir.join("exit.json")).expect("made");
            fs::write(dir.join("exit.json/x"), "x").expect("written");
        }),
    ];
    for (index, (name, change)) in changes.into_iter().enumerate() {
        let host = Host::new();
        let first = host.take(1);
        host.until_later_than(&first);
        change(&first);
        let was = Host::inodes(&first);
        // As long as they are open, nothing else gets their numbers.
        let held = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let open = |name| OpenOptions::new().read(true).custom_flags(held.bits()).open(first.join(name)).expect("opened");
        let _open: Vec<fs::File> = was.keys().map(open).collect();
        host.spools.give_back(&first).expect("given back");
        let second = host.take(2);
        let is = Host::inodes(&second);
        assert_ne!(is.get(name), was.get(name), "change {index} of {name}");
        assert!(!is.contains_key("again"), "change {index} left something");
        for dir in EMPTY_DIRS {
            let meta = second.join(dir).symlink_metadata().expect("there");
            assert!(meta.is_dir() && meta.mode() & 0o7777 == 0o700, "change {index}: {dir}");
            assert_eq!(fs::read_dir(second.join(dir)).expect("directory").count(), 0, "change {index}: {dir}");
        }
        for file in EMPTY_FILES {
            let meta = second.join(file).symlink_metadata().expect("there");
            assert!(meta.is_file() && meta.len() == 0 && meta.mode() & 0o7777 == PRIVATE, "change {index}: {file}");
        }
        assert_eq!(text(second.join(GRANT_FILE)), "{\"n\":2}");
    }
}

#[test]
fn the_directory_of_an_attempt_is_there_once_and_whole() {
    let host = Host::new();
    let first = host.take(1);
    assert!(host.spools.take(&attempt(1), b"{}", None).is_err(), "it has one already");
    assert_eq!(text(first.join(GRANT_FILE)), "{\"n\":1}");
    assert_eq!(fs::read_dir(host.dir.path().join("spool/.blank")).expect("directory").count(), 0, "half of one is left");
}

#[test]
fn those_that_wait_are_few_and_end_with_the_process() {
    let host = Host::new();
    let dirs: Vec<_> = (1..=4).map(|n| host.take(n)).collect();
    assert_eq!(host.spools.left().expect("listed").len(), 4);
    for dir in &dirs {
        host.spools.give_back(dir).expect("given back");
    }
    assert!(host.spools.left().expect("listed").is_empty(), "what waits is no attempt's");
    let blank = host.dir.path().join("spool/.blank");
    assert_eq!(fs::read_dir(&blank).expect("directory").count(), 2);
    let _next = Spools::open(host.dir.path().join("spool"), 2).expect("opened");
    assert_eq!(fs::read_dir(&blank).expect("directory").count(), 0);
}

#[test]
fn a_directory_of_the_process_before_goes_as_a_whole() {
    let host = Host::new();
    let dir = host.take(1);
    let next = Spools::open(host.dir.path().join("spool"), 2).expect("opened");
    assert_eq!(next.left().expect("listed"), std::slice::from_ref(&dir));
    next.give_back(&dir).expect("given back");
    assert_eq!(fs::read_dir(host.dir.path().join("spool/.blank")).expect("directory").count(), 0);
}
