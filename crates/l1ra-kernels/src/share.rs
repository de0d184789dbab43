//! One output that several tasks write, each a part of its own.

use std::marker::PhantomData;

/// A slice whose parts are written by several tasks at once.
#[derive(Clone, Copy)]
pub(crate) struct Disjoint<'a, T = f32> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the parts that tasks take do not overlap; `slice` and `pointer` ask for that.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// `len` values from `from`.
    ///
    /// # Safety
    /// No other task may take any of them while the result lives.
    ///
    /// # Panics
    /// If they are not all within the slice.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from + len <= self.len, "part outside of the output");
        // SAFETY: within the slice, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// Where the value `from` lies.
    ///
    /// # Panics
    /// If it is not within the slice.
    pub(crate) fn pointer(&self, from: usize) -> *mut T {
        assert!(from < self.len, "part outside of the output");
        // SAFETY: within the slice.
        unsafe { self.start.add(from) }
    }
}
