//! Pages of mapped files.

use std::ops::Range;

use memmap2::Mmap;

/// Gives the pages of a range that was copied back to the system, so that a file that is read from
/// end to end does not count twice in this process's memory. Does nothing where the system cannot.
pub(super) fn release(map: &Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    #[allow(unsafe_code)]
    // SAFETY: the map is read-only and of a file: pages that are dropped are read again from it.
    let _ = unsafe {
        map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
    };
    #[cfg(not(unix))]
    let _ = (map, range);
}
