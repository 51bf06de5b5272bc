//! What a process uses of the machine: its own threads and the processes that it started.

use nix::time::ClockId;
use rustix::process::Pid;
use std::fs;
use std::process::Child;
use std::time::Duration;

/// A process to look at.
pub(crate) struct Usage(Pid);

impl Usage {
    pub(super) fn of(process: &Child) -> Self {
        Self(Pid::from_child(process))
    }

    /// Processor time, in user and kernel mode, of all threads that are and were.
    pub(crate) fn cpu(&self) -> Duration {
        self.everyone().map(cpu_of).sum()
    }

    /// Memory that is in use, in KiB. What processes share counts in each: only its growth says something.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.everyone().map(resident_kib_of).sum()
    }

    /// The processes that it started, and those that they did.
    pub(crate) fn descendants(&self) -> Vec<Pid> {
        let mut found = children_of(self.0);
        let mut seen = 0;
        while seen < found.len() {
            found.extend(children_of(found[seen]));
            seen += 1;
        }
        found
    }

    fn everyone(&self) -> impl Iterator<Item = Pid> {
        std::iter::once(self.0).chain(self.descendants())
    }
}

// The clock that the scheduler keeps for it. `/proc/PID/stat` has the same in hundredths of a second, too coarse for a
// proxy that idles between messages; `/proc/PID/schedstat` is not in every kernel.
fn cpu_of(process: Pid) -> Duration {
    let process = nix::unistd::Pid::from_raw(process.as_raw_pid());
    let clock = ClockId::pid_cpu_clock_id(process).expect("the process runs");
    clock.now().expect("the process runs").into()
}

fn resident_kib_of(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// None of a process that has ended. Only a first thread starts processes here, or all are listed under it (proc(5)).
fn children_of(process: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}
