//! A buffer that is written through slots of known size.
//!
//! The buffer is initialised once and reused, so that no write pays for
//! zeroing or for unchecked code: one comparison makes room for a value, and
//! stores into the slot need no further checks.

use crate::engine::Strings;

/// How much is gathered before whole messages go to the output: small enough
/// to stay in the processor's second cache.
const SPILL: usize = 64 * 1024;

/// The first size of a buffer.
const FIRST: usize = 4 * 1024;

/// Room for any value that is neither a string nor made of parts, in text or
/// in binary. The functions that fill it take the position to write at and
/// give the position behind what they wrote; bytes behind that are free.
pub(super) type Slot = [u8; 96];

/// Writes an array into a slot.
#[inline(always)]
pub(super) fn put<const N: usize>(slot: &mut Slot, at: usize, bytes: [u8; N]) -> usize {
    slot[at..at + N].copy_from_slice(&bytes);
    at + N
}

#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    at: usize,
}

impl Writer {
    /// The position of the next byte.
    #[inline(always)]
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Appends what `fill` writes; its length in four bytes before it when
    /// `framed`.
    #[inline(always)]
    pub(super) fn value(&mut self, framed: bool, fill: impl FnOnce(&mut Slot, usize) -> usize) {
        let slot = self.slot::<{ size_of::<Slot>() }>();
        if framed {
            let end = fill(slot, 4);
            slot[..4].copy_from_slice(&((end - 4) as u32).to_be_bytes());
            self.at += end;
        } else {
            let end = fill(slot, 0);
            self.at += end;
        }
    }

    /// Appends an array; its length in four bytes before it when `framed`.
    #[inline(always)]
    pub(super) fn fixed<const N: usize>(&mut self, framed: bool, bytes: [u8; N]) {
        if framed {
            let slot = self.slot::<{ size_of::<Slot>() }>();
            slot[..4].copy_from_slice(&(N as u32).to_be_bytes());
            slot[4..4 + N].copy_from_slice(&bytes);
            self.at += 4 + N;
        } else {
            self.array(bytes);
        }
    }

    /// Appends a string; its length in four bytes before it when `framed`.
    #[inline(always)]
    pub(super) fn string(&mut self, framed: bool, strings: &Strings<'_>, row: usize) {
        let Some((bytes, length)) = strings.padded(row) else {
            if framed {
                self.array([0; 4]);
            }
            return;
        };
        // Most are short, and a block of known size is copied without a call.
        if let (Some(bytes), 0..=12) = (bytes.first_chunk::<12>(), length) {
            let slot = self.slot::<16>();
            if framed {
                slot[..4].copy_from_slice(&(length as u32).to_be_bytes());
                slot[4..].copy_from_slice(bytes);
                self.at += 4 + length;
            } else {
                slot[..12].copy_from_slice(bytes);
                self.at += length;
            }
            return;
        }
        if framed {
            self.array((length as u32).to_be_bytes());
        }
        // The rest are mostly not much longer: two blocks that overlap.
        match (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
            (Some(head), Some(tail)) if length <= 32 => {
                let slot = self.slot::<32>();
                slot[..16].copy_from_slice(head);
                slot[length - 16..length].copy_from_slice(tail);
                self.at += length;
            }
            _ => self.bytes(bytes),
        }
    }

    /// Room for `N` bytes at the position.
    #[inline(always)]
    fn slot<const N: usize>(&mut self) -> &mut [u8; N] {
        if self.bytes.len() - self.at < N {
            self.grow(N);
        }
        match self.bytes[self.at..].first_chunk_mut() {
            Some(slot) => slot,
            None => unreachable!("grow() made room"),
        }
    }

    /// Makes room for so many bytes.
    #[inline(always)]
    pub(super) fn reserve(&mut self, room: usize) {
        if self.bytes.len() - self.at < room {
            self.grow(room);
        }
    }

    /// The bytes from `at` on, which is behind the position and in the room
    /// that was made. A caller that keeps the position in a register instead
    /// of here does not wait for the memory with each value; it says so in
    /// the end with [`Writer::seek`].
    #[inline(always)]
    pub(super) fn room_at<const N: usize>(&mut self, at: usize) -> &mut [u8; N] {
        match self.bytes[at..].first_chunk_mut() {
            Some(room) => room,
            None => unreachable!("reserve() made room"),
        }
    }

    /// The same from the beginning on and up to the end of the room.
    #[inline(always)]
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Makes `at` the position of the next byte.
    #[inline(always)]
    pub(super) fn seek(&mut self, at: usize) {
        self.at = at;
    }

    /// Appends an array, whole.
    #[inline(always)]
    pub(super) fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        *self.slot() = bytes;
        self.at += N;
    }

    #[inline(always)]
    pub(super) fn byte(&mut self, byte: u8) {
        self.array([byte]);
    }

    /// Appends bytes of any number.
    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if self.bytes.len() - self.at < bytes.len() {
            self.grow(bytes.len());
        }
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Leaves four bytes for a length and says where.
    #[inline(always)]
    pub(super) fn begin(&mut self) -> usize {
        let mark = self.at;
        self.slot::<4>();
        self.at += 4;
        mark
    }

    /// Fills in the length of what follows the four bytes at `mark`.
    #[inline(always)]
    pub(super) fn end(&mut self, mark: usize) {
        let length = (self.at - mark - 4) as u32;
        self.patch(mark, length.to_be_bytes());
    }

    /// The same for a message, whose length counts the four bytes too.
    #[inline(always)]
    pub(super) fn end_message(&mut self, mark: usize) {
        let length = (self.at - mark) as u32;
        self.patch(mark, length.to_be_bytes());
    }

    #[inline(always)]
    pub(super) fn patch(&mut self, mark: usize, bytes: [u8; 4]) {
        self.bytes[mark..mark + 4].copy_from_slice(&bytes);
    }

    /// What was written from `mark` on.
    pub(super) fn since(&self, mark: usize) -> &[u8] {
        &self.bytes[mark..self.at]
    }

    /// Forgets what was written from `mark` on.
    pub(super) fn truncate(&mut self, mark: usize) {
        self.at = mark;
    }

    /// Whether enough is gathered to move it on.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.at >= SPILL
    }

    /// Moves all that was written to the end of `out`.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.at]);
        self.clear();
    }

    /// Forgets all that was written.
    pub(super) fn clear(&mut self) {
        self.at = 0;
        // One huge value must not cost its memory for the rest of the session.
        if self.bytes.len() > 16 * SPILL {
            self.bytes = Vec::new();
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, room: usize) {
        // Small at first: most results are, and zeroing a large buffer for
        // each of them would cost more than encoding them.
        let size = (self.at + room).max(FIRST).max(2 * self.bytes.len());
        self.bytes.resize(size, 0);
    }
}
