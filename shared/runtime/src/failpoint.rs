//! Named points at which a test makes a process crash, fail, wait or panic; a build without debug assertions has none.
//!
//! `HOPYARD_FAILPOINTS=scheduler.commit.after=crash:3,executor.spawned=delay(200)` arms points of one process when it starts:
//! the third pass through the first one kills the process, the first pass through the second one waits 200 ms. Actions are
//! `crash` (SIGKILL to itself), `panic`, `error` (where a point can fail: a full disk) and `delay(MS)`; `:N` is the pass that
//! acts, `:N+` makes every later one act too. With `HOPYARD_FAILPOINTS_ONCE=DIR`, a point acts once among all processes that
//! share the directory, and leaves a file of its name there as the proof.

/// Marks a point: `failpoint!("name")` as a statement, `failpoint!(try "name")` as a value of `std::io::Result<()>`.
#[cfg(debug_assertions)]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::pass($name)
    };
    (try $name:literal) => {
        $crate::failpoint::try_pass($name)
    };
}

/// Marks a point: nothing in this build.
#[cfg(not(debug_assertions))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        ()
    };
    (try $name:literal) => {
        ::std::io::Result::Ok(())
    };
}

#[cfg(debug_assertions)]
mod armed;
#[cfg(debug_assertions)]
mod points;

#[cfg(debug_assertions)]
pub use armed::{check, pass, try_pass};
#[cfg(debug_assertions)]
pub use points::POINTS;

/// The settings of this module, for a child process whose environment is built from nothing.
pub fn handed_down() -> Vec<(&'static str, String)> {
    #[cfg(debug_assertions)]
    return armed::settings();
    #[cfg(not(debug_assertions))]
    return Vec::new();
}
