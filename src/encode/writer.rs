//! A buffer that is written through slots of known size.
//!
//! The buffer is initialised once and reused, so that no write pays for
//! zeroing or for unchecked code: one comparison makes room for a value, and
//! stores into the slot need no further checks.

/// How much is gathered before whole messages go to the output: small enough
/// to stay in the processor's second cache.
const SPILL: usize = 64 * 1024;

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

    /// Room for `N` bytes at the position; [`Writer::advance`] says how many
    /// of them count.
    #[inline(always)]
    pub(super) fn slot<const N: usize>(&mut self) -> &mut [u8; N] {
        if self.bytes.len() - self.at < N {
            self.grow(N);
        }
        match self.bytes[self.at..].first_chunk_mut() {
            Some(slot) => slot,
            None => unreachable!("grow() made room"),
        }
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, count: usize) {
        self.at += count;
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
        self.at = 0;
        // One huge value must not cost its memory for the rest of the session.
        if self.bytes.len() > 16 * SPILL {
            self.bytes = Vec::new();
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, room: usize) {
        let size = (self.at + room)
            .max(2 * SPILL)
            .max(self.bytes.len() + self.bytes.len() / 2);
        self.bytes.resize(size, 0);
    }
}
