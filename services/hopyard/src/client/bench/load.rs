//! What the services of a stack use of the machine. Only Linux tells.

use std::collections::BTreeMap;

/// Of one service and of the children that it has waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// CPU time, in seconds.
    pub(super) cpu_s: f64,
    /// The most memory that it had itself so far, in MB.
    pub(super) peak_mb: f64,
}

/// The services below a process, by their names.
#[cfg(target_os = "linux")]
pub(super) fn of_stack(parent: u32) -> BTreeMap<String, Used> {
    let Ok(all) = procfs::process::all_processes() else { return BTreeMap::new() };
    // One that ends meanwhile is none of them.
    all.filter_map(|process| service(&process.ok()?, parent)).collect()
}

#[cfg(target_os = "linux")]
fn service(process: &procfs::process::Process, parent: u32) -> Option<(String, Used)> {
    let stat = process.stat().ok().filter(|stat| u32::try_from(stat.ppid) == Ok(parent))?;
    let command = process.cmdline().ok()?;
    // Ours are told by their subcommand, others by their program.
    let name = match stat.comm.as_str() {
        "hopyard" => command.get(1)?.clone(),
        other => other.to_owned(),
    };
    let ticks = stat.utime + stat.stime + u64::try_from(stat.cutime + stat.cstime).unwrap_or_default();
    let peak_kb = process.status().ok()?.vmhwm.unwrap_or_default();
    Some((name, Used { cpu_s: ticks as f64 / procfs::ticks_per_second() as f64, peak_mb: peak_kb as f64 / 1024.0 }))
}

/// Nothing is known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn of_stack(_: u32) -> BTreeMap<String, Used> {
    BTreeMap::new()
}
