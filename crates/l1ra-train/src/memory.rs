//! Memory of this process and of the machine.
//!
//! | figure | Linux | elsewhere |
//! |---|---|---|
//! | resident | `VmRSS` of `/proc/self/status` | `sysinfo` |
//! | peak | `VmHWM` of `/proc/self/status` | the largest of the samples taken |
//! | available | `MemAvailable`, and what is left to the control group | `sysinfo` |
//!
//! Resident bytes count file pages that are mapped and were touched, the program itself among them.
//! Memory of a GPU is in none of these figures; [`device_bytes`] has what Burn's allocator holds of it.

mod allocator;
#[cfg(any(target_os = "linux", test))]
mod cgroup;

use std::fmt;

use burn::tensor::Device;

pub use allocator::{RETURNED_BYTES, allocated_bytes, keep_freed_memory, return_freed_memory};

/// Bytes of this process in memory now, or `None` where the system does not say.
pub fn resident_bytes() -> Option<u64> {
    system::resident()
}

/// The most bytes that this process had in memory at once, since it began. `None` where the system
/// keeps no such mark: everywhere but on Linux. [`PeakMemory`] works anywhere.
pub fn peak_resident_bytes() -> Option<u64> {
    system::peak()
}

/// Begins [`peak_resident_bytes`] anew, at what is in memory now; whether the system did. Linux only,
/// and not in every container.
pub fn reset_peak() -> bool {
    system::reset_peak()
}

/// Bytes that Burn's allocator holds on a device with memory of its own, free pages that it keeps for
/// later among them; `None` for a CPU, whose tensors are in the process's memory.
pub fn device_bytes(device: &Device) -> Option<u64> {
    let usage = device.clone().inner().memory_pool_usage();
    usage.map(|usage| usage.bytes_reserved)
}

/// Bytes that this process could still take without swapping: what the machine has to give, or what
/// is left under the limit of the process's control group (a container's) where that is less.
pub fn available_bytes() -> Option<u64> {
    system::available()
}

/// The peak of this process's memory, by the system's own mark where it has one and by samples
/// elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeakMemory {
    largest: u64,
}

impl PeakMemory {
    /// Looks now, and returns the peak so far; 0 where nothing can be measured.
    ///
    /// Between samples, only Linux keeps watch.
    pub fn sample(&mut self) -> u64 {
        self.see(peak_resident_bytes().or_else(resident_bytes))
    }

    fn see(&mut self, bytes: Option<u64>) -> u64 {
        self.largest = self.largest.max(bytes.unwrap_or(0));
        self.largest
    }

    /// The peak of the samples so far.
    pub fn bytes(self) -> u64 {
        self.largest
    }
}

/// A number of bytes as people read it: `1.63 GB`, `48 MB`, `7.4 kB`, powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        let text = match self.0 {
            0..1_000 => format!("{} B", self.0),
            1_000..9_950 => format!("{:.1} kB", bytes / 1e3),
            9_950..999_500 => format!("{:.0} kB", bytes / 1e3),
            999_500..9_950_000 => format!("{:.1} MB", bytes / 1e6),
            9_950_000..999_500_000 => format!("{:.0} MB", bytes / 1e6),
            _ => format!("{:.2} GB", bytes / 1e9),
        };
        f.pad(&text)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::{fs::read_to_string, path::Path};

    use super::{cgroup, kib_field};

    pub(super) fn resident() -> Option<u64> {
        kib_field(&read_to_string("/proc/self/status").ok()?, "VmRSS:")
    }

    pub(super) fn peak() -> Option<u64> {
        kib_field(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
    }

    pub(super) fn reset_peak() -> bool {
        std::fs::write("/proc/self/clear_refs", "5").is_ok()
    }

    pub(super) fn available() -> Option<u64> {
        let machine = read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| kib_field(&text, "MemAvailable:"));
        let group = read_to_string("/proc/self/cgroup")
            .ok()
            .and_then(|text| cgroup::available(&text, Path::new("/sys/fs/cgroup")));
        machine.into_iter().chain(group).min()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use sysinfo::{ProcessesToUpdate, System, get_current_pid};

    pub(super) fn resident() -> Option<u64> {
        let id = get_current_pid().ok()?;
        let mut system = System::new();
        system.refresh_processes(ProcessesToUpdate::Some(&[id]), true);
        system.process(id).map(sysinfo::Process::memory)
    }

    pub(super) fn peak() -> Option<u64> {
        None
    }

    pub(super) fn reset_peak() -> bool {
        false
    }

    pub(super) fn available() -> Option<u64> {
        let mut system = System::new();
        system.refresh_memory();
        Some(system.available_memory()).filter(|bytes| *bytes > 0)
    }
}

/// The value of a line such as `VmHWM:  1234 kB` in bytes.
#[cfg(any(target_os = "linux", test))]
fn kib_field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_kib() {
        let text = "Name:\tl1ra\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t2\n";
        assert_eq!(kib_field(text, "VmHWM:"), Some(2 << 20));
        assert_eq!(kib_field(text, "VmRSS:"), Some(1 << 20));
        assert_eq!(kib_field(text, "Threads:"), None);
        assert_eq!(kib_field(text, "VmSwap:"), None);
    }

    #[test]
    fn this_process_is_somewhere() {
        let resident = resident_bytes().unwrap();
        assert!(resident > 100_000, "{resident}");
        let mut peak = PeakMemory::default();
        assert!(peak.sample() > 100_000);
        let before = peak.bytes();
        let block = vec![1_u8; 64 << 20];
        assert!(std::hint::black_box(&block).iter().all(|byte| *byte == 1));
        assert!(peak.sample() >= before.max(64 << 20));
        assert!(available_bytes().unwrap() > 0);
    }

    #[test]
    fn a_peak_never_falls() {
        let mut peak = PeakMemory::default();
        assert_eq!(peak.see(None), 0);
        assert_eq!(peak.see(Some(7)), 7);
        assert_eq!(peak.see(Some(3)), 7);
    }

    #[test]
    fn bytes_are_short() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(512), "512 B");
        assert_eq!(text(7_400), "7.4 kB");
        assert_eq!(text(48_000_000), "48 MB");
        assert_eq!(text(999_499_999), "999 MB");
        assert_eq!(text(999_600_000), "1.00 GB");
        assert_eq!(text(1_632_000_000), "1.63 GB");
        assert_eq!(format!("{:>8}", Bytes(48_000_000)), "   48 MB");
    }
}
