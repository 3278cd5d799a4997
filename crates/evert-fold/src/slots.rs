//! Byte strings in numbered slots: short ones in the slot itself, others packed into pages.
//!
//! Invariants
//! - A slot's number does not change while it is in use; a freed number is used again.
//! - Bytes of freed slots are at most about half of what the pages hold.

/// Bytes of a page, unless one string alone is longer.
const PAGE_BYTES: usize = 256 * 1024;

/// Strings up to this long lie in their slots: the key of an integer does.
const INLINE_BYTES: usize = 12;

/// A string, or where it is.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    len: u32,
    /// The string, if it is short; otherwise its page and where in it the string starts.
    inline: [u8; INLINE_BYTES],
}

impl Span {
    fn of_short(bytes: &[u8]) -> Option<Self> {
        let mut inline = [0; INLINE_BYTES];
        inline.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { len: bytes.len() as u32, inline })
    }

    fn in_page(len: u32, page: u32, start: u32) -> Self {
        let mut inline = [0; INLINE_BYTES];
        inline[..4].copy_from_slice(&page.to_le_bytes());
        inline[4..8].copy_from_slice(&start.to_le_bytes());
        Self { len, inline }
    }

    /// The page and the place in it, if the string is long.
    fn place(&self) -> Option<(usize, usize)> {
        if self.len as usize <= INLINE_BYTES {
            return None;
        }
        let [a, b, c, d, e, f, g, h, ..] = self.inline;
        let (page, start) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        Some((page as usize, start as usize))
    }
}

#[derive(Debug, Default)]
struct Page {
    data: Vec<u8>,
    live_bytes: usize,
}

/// A slab of byte strings.
#[derive(Debug, Default)]
pub(crate) struct ByteSlots {
    spans: Vec<Span>,
    free: Vec<u32>,
    pages: Vec<Page>,
    free_pages: Vec<u32>,
    open_page: u32,
    live_bytes: usize,
    held_bytes: usize,
}

impl ByteSlots {
    /// Slots ever used: numbers lie below this.
    pub(crate) fn end(&self) -> usize {
        self.spans.len()
    }

    /// Slots in use.
    pub(crate) fn len(&self) -> usize {
        self.spans.len() - self.free.len()
    }

    pub(crate) fn get(&self, slot: u32) -> &[u8] {
        let span = &self.spans[slot as usize];
        let len = span.len as usize;
        match span.place() {
            None => &span.inline[..len],
            Some((page, start)) => &self.pages[page].data[start..start + len],
        }
    }

    pub(crate) fn insert(&mut self, bytes: &[u8]) -> u32 {
        let span = self.store(bytes);
        match self.free.pop() {
            Some(slot) => {
                self.spans[slot as usize] = span;
                slot
            }
            None => {
                self.spans.push(span);
                u32::try_from(self.spans.len() - 1).expect("fewer than 2^32 rows of state")
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        let span = std::mem::take(&mut self.spans[slot as usize]);
        self.free.push(slot);
        let Some((number, _)) = span.place() else { return };
        self.live_bytes -= span.len as usize;
        let page = &mut self.pages[number];
        page.live_bytes -= span.len as usize;
        if page.live_bytes == 0 && number != self.open_page as usize {
            self.held_bytes -= page.data.capacity();
            page.data = Vec::new();
            self.free_pages.push(number as u32);
        }
        if self.held_bytes > 2 * self.live_bytes + 4 * PAGE_BYTES {
            self.compact();
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.held_bytes
            + self.spans.capacity() * size_of::<Span>()
            + self.free.capacity() * size_of::<u32>()
    }

    fn store(&mut self, bytes: &[u8]) -> Span {
        if let Some(span) = Span::of_short(bytes) {
            return span;
        }
        let len = u32::try_from(bytes.len()).expect("a row is shorter than 4 GiB");
        let fits = self
            .pages
            .get(self.open_page as usize)
            .is_some_and(|page| page.data.capacity() - page.data.len() >= bytes.len());
        if !fits {
            self.open_page(bytes.len());
        }
        let page = &mut self.pages[self.open_page as usize];
        let start = u32::try_from(page.data.len()).expect("a page is shorter than 4 GiB");
        page.data.extend_from_slice(bytes);
        page.live_bytes += bytes.len();
        self.live_bytes += bytes.len();
        Span::in_page(len, self.open_page, start)
    }

    fn open_page(&mut self, bytes_min: usize) {
        // The first page grows with its content, so that small state stays small.
        let bytes = if self.pages.is_empty() { 4096 } else { PAGE_BYTES };
        let data = Vec::with_capacity(bytes.max(bytes_min));
        self.held_bytes += data.capacity();
        let page = Page { data, live_bytes: 0 };
        // The page that was open may have been emptied while it was.
        if let Some(old) = self.pages.get_mut(self.open_page as usize)
            && old.live_bytes == 0
            && old.data.capacity() > 0
        {
            self.held_bytes -= old.data.capacity();
            *old = page;
            return;
        }
        self.open_page = match self.free_pages.pop() {
            Some(number) => {
                self.pages[number as usize] = page;
                number
            }
            None => {
                self.pages.push(page);
                u32::try_from(self.pages.len() - 1).expect("fewer than 2^32 pages")
            }
        };
    }

    /// Copies what is live into new pages.
    fn compact(&mut self) {
        let old = std::mem::take(&mut self.pages);
        self.free_pages.clear();
        (self.open_page, self.live_bytes, self.held_bytes) = (0, 0, 0);
        let mut spans = std::mem::take(&mut self.spans);
        for span in &mut spans {
            let Some((page, start)) = span.place() else { continue };
            let bytes = &old[page].data[start..start + span.len as usize];
            *span = self.store(bytes);
        }
        self.spans = spans;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn slots_keep_their_bytes_through_churn_and_compaction() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut slots = ByteSlots::default();
        let mut model: HashMap<u32, Vec<u8>> = HashMap::new();
        for step in 0..60_000 {
            let shrinking = (step / 10_000) % 2 == 1;
            if !model.is_empty() && rng.u8(0..10) < if shrinking { 8 } else { 3 } {
                let slot = *model.keys().nth(rng.usize(0..model.len().min(20))).unwrap();
                assert_eq!(slots.get(slot), model.remove(&slot).unwrap());
                slots.remove(slot);
            } else {
                let len = match rng.u8(..) {
                    0 => rng.usize(0..400_000),
                    1..100 => rng.usize(0..INLINE_BYTES + 2),
                    _ => rng.usize(0..100),
                };
                let bytes = vec![rng.u8(..); len];
                let slot = slots.insert(&bytes);
                assert!(model.insert(slot, bytes).is_none(), "a slot in use was given out");
            }
        }
        for (slot, bytes) in &model {
            assert_eq!(slots.get(*slot), bytes);
        }
        let live: usize = model.values().map(Vec::len).sum();
        assert!(slots.held_bytes <= 2 * live + 6 * PAGE_BYTES + 800_000);
    }
}
