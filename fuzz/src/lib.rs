//! What the fuzz targets share.

pub mod peer;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a bound on single allocations.
struct Bounded;

static BOUND: AtomicUsize = AtomicUsize::new(usize::MAX);

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn check(size: usize) {
    if size > BOUND.load(Ordering::Relaxed) {
        // The panic itself allocates.
        BOUND.store(usize::MAX, Ordering::Relaxed);
        panic!("an allocation of {size} bytes for an input that does not warrant it");
    }
}

/// Runs `read` on `input` and panics if it allocates out of proportion: no number
/// in an input may decide how much memory is taken.
pub fn frugally<'a, T>(input: &'a [u8], read: impl FnOnce(&'a [u8]) -> T) -> T {
    BOUND.store(input.len() * 64 + 4096, Ordering::Relaxed);
    let result = read(input);
    BOUND.store(usize::MAX, Ordering::Relaxed);
    result
}

/// Takes fuzz input apart from the front.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// The next byte, 0 at the end.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// So many bytes, or as many as there are.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their number, up to 255, in front.
    pub fn bytes(&mut self) -> &'a [u8] {
        let count = self.byte();
        self.take(count.into())
    }
}

/// Cuts `bytes` into pieces whose sizes follow from `seed`.
pub fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut state = u32::from(seed) + 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Often single bytes, where the borders are.
        let size = if state >> 31 == 0 {
            1
        } else {
            1 + (state >> 20) as usize % 60
        };
        let (piece, left) = rest.split_at(size.min(rest.len()));
        rest = left;
        Some(piece)
    })
}
