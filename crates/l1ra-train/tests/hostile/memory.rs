//! A global allocator that counts, so that a test can say how much a loader took.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering::Relaxed},
};

/// Bytes that are allocated, and the most there were since [`Peak::begin`].
static NOW: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

/// The system's allocator, counted. What threads of a pool take is counted too.
pub(crate) struct Counting;

fn add(bytes: isize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    MOST.fetch_max(now, Relaxed);
}

// SAFETY: every call is the system's own; only numbers are kept.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let place = unsafe { System.alloc(layout) };
        if !place.is_null() {
            add(layout.size() as isize);
        }
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let place = unsafe { System.alloc_zeroed(layout) };
        if !place.is_null() {
            add(layout.size() as isize);
        }
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        unsafe { System.dealloc(place, layout) };
        add(-(layout.size() as isize));
    }

    /// Growth counts as the difference: large blocks are moved by the system without a copy.
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let moved = unsafe { System.realloc(place, layout, size) };
        if !moved.is_null() {
            add(size as isize - layout.size() as isize);
        }
        moved
    }
}

/// Memory from here on.
pub(crate) struct Peak(isize);

impl Peak {
    pub(crate) fn begin() -> Self {
        let now = NOW.load(Relaxed);
        MOST.store(now, Relaxed);
        Self(now)
    }

    /// The most bytes that were allocated beyond those at the beginning.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(MOST.load(Relaxed) - self.0).unwrap_or(0)
    }
}
