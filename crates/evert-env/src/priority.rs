//! Which threads go first.

/// How much less than others a thread that gives way gets, in the system's terms (nice(2)).
const GIVES_WAY: i32 = 5;

/// Lets other threads go first from now on: what the calling thread does can wait. Threads that
/// it starts do the same. There is no way back.
pub fn give_way() {
    // Where the system refuses, the thread is one like any other. (Linux: the process 0 of
    // setpriority(2) is the calling thread.)
    let _ = rustix::process::setpriority_process(None, GIVES_WAY);
}
