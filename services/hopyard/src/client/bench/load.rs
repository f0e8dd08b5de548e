//! What the services of a stack use of the machine. Only Linux tells.

use std::collections::BTreeMap;

use super::figures::line;
use crate::client::output;

/// Of one service and of the children that it has waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// CPU time, in seconds.
    pub(super) cpu_s: f64,
    /// The most memory that it had itself so far, in MB.
    pub(super) peak_mb: f64,
    /// Memory that it has now, in MB; what it shares with others counts in part.
    pub(super) pss_mb: f64,
}

impl Used {
    /// What was used since an earlier look.
    pub(super) fn since(self, before: Self) -> Self {
        Self { cpu_s: self.cpu_s - before.cpu_s, ..self }
    }

    /// Tells what a service used for so many runs, as figures and as a row of a table.
    pub(super) fn tell(self, bench: &str, service: &str, runs: f64) -> Vec<String> {
        let spent = self.cpu_s / runs * 1000.0;
        output::data(&line(bench, &format!("{service}_cpu_ms_per_run"), spent, "ms", None).to_string());
        output::data(&line(bench, &format!("{service}_peak_mb"), self.peak_mb, "MB", None).to_string());
        vec![service.to_owned(), format!("{spent:.3} ms of CPU a run, at most {:.1} MB", self.peak_mb)]
    }
}

/// The services below a process, by their names; an executor with the nursery of its steps.
#[cfg(target_os = "linux")]
pub(super) fn of_stack(parent: u32) -> BTreeMap<String, Used> {
    let Ok(all) = procfs::process::all_processes() else { return BTreeMap::new() };
    // One that ends meanwhile is none of them.
    let all: Vec<_> = all.filter_map(|process| process.ok().and_then(|p| p.stat().ok().map(|stat| (p, stat)))).collect();
    let of = |parent| all.iter().filter(move |(_, stat)| u32::try_from(stat.ppid) == Ok(parent));
    let service = |(process, stat): &(procfs::process::Process, procfs::process::Stat)| {
        let nurseries = of(stat.pid.unsigned_abs()).filter(|(_, child)| child.comm == "hopyard-nursery");
        let cpu_s = cpu_s(stat) + nurseries.map(|(_, child)| cpu_s(child)).sum::<f64>();
        let command = process.cmdline().ok()?;
        // Ours are told by their subcommand, others by their program.
        let name = if stat.comm == "hopyard" { command.get(1)?.clone() } else { stat.comm.clone() };
        let peak_kb = process.status().ok()?.vmhwm.unwrap_or_default();
        let pss = process.smaps_rollup().ok().and_then(|rollup| rollup.memory_map_rollup.0.first()?.extension.map.get("Pss").copied());
        Some((name, Used { cpu_s, peak_mb: peak_kb as f64 / 1024.0, pss_mb: pss.unwrap_or_default() as f64 / 1024.0 / 1024.0 }))
    };
    of(parent).filter_map(service).collect()
}

/// CPU time of a process and of the children that it has waited for.
#[cfg(target_os = "linux")]
fn cpu_s(stat: &procfs::process::Stat) -> f64 {
    let ticks = stat.utime + stat.stime + u64::try_from(stat.cutime + stat.cstime).unwrap_or_default();
    ticks as f64 / procfs::ticks_per_second() as f64
}

/// Nothing is known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn of_stack(_: u32) -> BTreeMap<String, Used> {
    BTreeMap::new()
}
