//! What this process, and servers that it asks, have used so far: CPU time and memory, as Linux
//! tells it.

use std::time::Duration;

/// The kernel reports CPU time in hundredths of a second to user space, on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of all threads, user and system. Nothing where there is no `/proc`.
pub(super) fn cpu_time() -> Option<Duration> {
    cpu_time_in("self")
}

fn cpu_time_in(process: &str) -> Option<Duration> {
    ticks_of(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// What a process that was asked has taken; what is not known of it is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// CPU time meanwhile.
    pub(super) cpu: Option<Duration>,
    /// The most memory that was resident meanwhile, in bytes.
    pub(super) memory_peak: Option<u64>,
}

impl Taken {
    /// Looks at a process from now on, until the function that is returned is called.
    pub(super) fn by(process: u32) -> impl FnOnce() -> Self {
        let process = process.to_string();
        forget_peak_of(&process);
        let before = cpu_time_in(&process);
        move || Self {
            cpu: before.zip(cpu_time_in(&process)).map(|(a, b)| b.saturating_sub(a)),
            memory_peak: memory_line(&process, "VmHWM:"),
        }
    }
}

/// CPU time of the threads of a name that are alive. Nothing where there is no `/proc`.
pub(super) fn cpu_time_of(thread: &str) -> Option<Duration> {
    let mut spent = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        // One that has ended meanwhile counts no more.
        let Ok(stat) = std::fs::read_to_string(task.ok()?.path().join("stat")) else { continue };
        if stat.split_once('(').is_some_and(|(_, rest)| rest.starts_with(&format!("{thread})"))) {
            spent += ticks_of(&stat)?;
        }
    }
    Some(spent)
}

fn ticks_of(stat: &str) -> Option<Duration> {
    // A name may hold spaces; what follows its parenthesis does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let (user, system) = (ticks(11)?, ticks(12)?);
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// The most memory that was resident since the last `forget_peak`, in bytes.
pub(super) fn memory_peak() -> Option<u64> {
    memory_line("self", "VmHWM:")
}

/// The memory that is resident, in bytes.
pub(super) fn memory() -> Option<u64> {
    memory_line("self", "VmRSS:")
}

fn memory_line(process: &str, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Begins a new peak. Where the kernel does not allow it, the peak is the process's whole one.
pub(super) fn forget_peak() {
    forget_peak_of("self");
}

fn forget_peak_of(process: &str) {
    let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_and_memory() {
        let (Some(before), Some(_)) = (cpu_time(), memory_peak()) else {
            return;
        };
        forget_peak();
        let peak = memory_peak().unwrap();
        let start = std::time::Instant::now();
        let mut held = vec![1_u8; 200 << 20];
        while start.elapsed() < Duration::from_millis(300) {
            held.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        assert_eq!(held[0] % 2, 1);
        assert!(cpu_time().unwrap() > before);
        assert!(memory_peak().unwrap() >= peak + (150 << 20));
    }
}
