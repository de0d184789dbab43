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

#[cfg(test)]
mod tests {
    #[test]
    fn glibc_takes_it() {
        assert_eq!(
            super::keep_freed_memory(),
            cfg!(all(target_os = "linux", target_env = "gnu"))
        );
    }
}
