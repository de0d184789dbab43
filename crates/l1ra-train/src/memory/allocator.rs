//! How the system's allocator treats large blocks.

/// Tells the allocator to keep freed memory for the next step in place of giving it back to the
/// system, and returns whether it took that.
///
/// A training step frees and asks again for the same gigabyte; pages that went back are zeroed and
/// mapped anew each time, which is about a tenth of a step. Peak memory stays what it was; memory that
/// was freed stays with the process, but for what exceeds 2 GiB at the heap's end. For a program to call at its start; only glibc has the setting.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    {
        // SAFETY: mallopt sets parameters of the allocator and touches no memory of ours.
        let set = |parameter, value| unsafe { libc::mallopt(parameter, value) == 1 };
        // Older versions take a threshold of 32 MiB at most.
        let mapped = set(libc::M_MMAP_THRESHOLD, 1 << 30) || set(libc::M_MMAP_THRESHOLD, 1 << 25);
        set(libc::M_TRIM_THRESHOLD, i32::MAX) && mapped
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Blocks from this size on go back to the system, where [`return_freed_memory`] was called.
pub const RETURNED_BYTES: usize = 32 << 10;

/// Tells the allocator to give every freed block of [`RETURNED_BYTES`] and more back to the system at once,
/// and returns whether it took that.
///
/// The opposite of [`keep_freed_memory`]: for a process in which memory that stays flat counts for more than
/// time. Between arrays that live long, as adapters whose ranks move, arrays of a step leave free pieces in
/// the heap; with this they are never in it. By itself glibc raises its threshold as blocks are freed, up to
/// 32 MiB. For a program to call at its start; only glibc has the setting.
pub fn return_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    {
        // SAFETY: as above. Setting the threshold keeps it from moving.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED_BYTES as i32) == 1 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Bytes that the allocator has handed out and not got back, in all threads. What a process has in
/// memory is more: the free pieces between them, of which there are the more the longer it runs, up
/// to a point. `None` where the allocator is not asked: everywhere but with glibc.
pub fn allocated_bytes() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    {
        // SAFETY: mallinfo2 reads the allocator's own counts.
        let counts = unsafe { libc::mallinfo2() };
        Some((counts.uordblks + counts.hblkhd) as u64)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_handed_out_is_counted() {
        let before = super::allocated_bytes();
        let block = vec![1_u8; 64 << 20];
        let after = super::allocated_bytes();
        assert_eq!(
            after.is_some(),
            cfg!(all(target_os = "linux", target_env = "gnu"))
        );
        // Other tests run beside this one.
        let grown = after
            .zip(before)
            .map(|(after, before)| after > before + (32 << 20));
        assert_ne!(grown, Some(false), "{before:?} {after:?}");
        assert_eq!(block[0], 1);
    }

    #[test]
    fn glibc_takes_both() {
        let glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
        assert_eq!(super::return_freed_memory(), glibc);
        assert_eq!(super::keep_freed_memory(), glibc);
    }
}
