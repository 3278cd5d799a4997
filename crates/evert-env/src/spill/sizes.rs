//! Sizes of blocks: four to each doubling, so that a block wastes a fifth at most.

use std::alloc::Layout;

/// The smallest block. Sizes are multiples of it.
const UNIT: usize = 16;
/// Blocks from this size on are places of the file; smaller ones are parts of a slab.
pub(super) const LARGE_BYTES: usize = 64 * 1024;
/// Larger alignments are not served. Sizes of large blocks are multiples of it.
pub(super) const ALIGN_MAX: usize = LARGE_BYTES / 4;
/// Sizes up to 2^44 bytes.
pub(super) const CLASSES: usize = 4 * 38 + 4;

/// The bytes of a class's blocks.
pub(super) const fn bytes_of(class: usize) -> usize {
    if class < 4 {
        return (class + 1) * UNIT;
    }
    let (doubling, quarter) = ((class - 4) / 4, (class - 4) % 4);
    (5 + quarter) * (UNIT << doubling)
}

/// The smallest class whose blocks hold a layout.
pub(super) fn class_of(layout: Layout) -> Option<usize> {
    if layout.align() > ALIGN_MAX {
        return None;
    }
    // Blocks lie at multiples of their size from an address that every alignment divides.
    let fits = |class: &usize| bytes_of(*class).is_multiple_of(layout.align());
    (first_of(layout.size())..CLASSES).find(fits)
}

/// The first class of at least so many bytes.
fn first_of(bytes: usize) -> usize {
    let units = bytes.div_ceil(UNIT).max(1);
    if units <= 4 {
        return units - 1;
    }
    // 5 to 8 units are the first four classes, 10 to 16 the next, and so on.
    let doubling = ((units - 1) / 4).ilog2() as usize;
    4 + 4 * doubling + units.div_ceil(1 << doubling) - 5
}

/// The bytes of the slabs that a class's blocks are parts of: a class of large blocks.
pub(super) fn slab_bytes(class: usize) -> usize {
    LARGE_BYTES.max(8 * bytes_of(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_is_the_smallest_that_fits() {
        for bytes in (1..5000).chain([65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 1 << 40]) {
            let class = first_of(bytes);
            assert!(bytes_of(class) >= bytes, "{bytes}");
            assert!(class == 0 || bytes_of(class - 1) < bytes, "{bytes}");
        }
    }

    #[test]
    fn classes_ascend_by_a_quarter_at_most_and_slabs_are_classes() {
        for class in 4..CLASSES {
            let (before, bytes) = (bytes_of(class - 1), bytes_of(class));
            assert!(before < bytes && bytes <= before + before / 4, "{class}");
            if bytes >= LARGE_BYTES {
                assert!(bytes.is_multiple_of(ALIGN_MAX));
            } else {
                let slab = slab_bytes(class);
                assert_eq!(bytes_of(first_of(slab)), slab);
            }
        }
    }

    #[test]
    fn alignments_divide_sizes() {
        for align in (0..15).map(|n| 1 << n) {
            for size in [0, 1, 100, 5000, 100_000] {
                let class = class_of(Layout::from_size_align(size, align).expect("a layout"))
                    .expect("a layout");
                assert!(bytes_of(class).is_multiple_of(align) && bytes_of(class) >= size);
            }
        }
        assert_eq!(class_of(Layout::from_size_align(8, 1 << 20).expect("a layout")), None);
    }
}
