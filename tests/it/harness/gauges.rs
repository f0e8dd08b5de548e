//! What a service says about itself on its admin port, and what the kernel says about it.

use super::Harness;
use super::http;
use super::process::Process;

impl Harness {
    fn look_at(&self, name: &str) -> &Process {
        self.processes.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// A sample of a service's `/metrics`, by its name with labels; absent is 0.
    pub async fn metric(&self, service: &str, sample: &str) -> f64 {
        let admin = self.look_at(service).admin();
        let page = http::send(admin, "GET", "/metrics", &[], b"").await.unwrap().expect(200).text();
        page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// The most memory that a service has had so far, in bytes.
    pub fn peak_memory(&self, service: &str) -> u64 {
        let pid = self.look_at(service).pid().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
        kib * 1024
    }
}
