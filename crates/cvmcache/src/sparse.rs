//! Tables that give memory back when most of what was in them has gone.

use std::collections::HashMap;
use std::hash::Hash;

/// A table with room for so few entries is left as it is.
const KEPT: usize = 64;

/// To be called after entries were removed. Moves what is left only after three quarters have gone, so
/// removals stay cheap, taken together.
pub(crate) fn shrink_if_sparse<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > KEPT && table.len() < table.capacity() / 4 {
        table.shrink_to((2 * table.len()).max(KEPT / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_emptied_gives_its_memory_back_in_few_moves() {
        let mut table: HashMap<u32, u32> = (0..100_000).map(|number| (number, 0)).collect();
        let (mut moves, mut capacity) = (0, table.capacity());
        for number in 0..100_000 {
            table.remove(&number);
            shrink_if_sparse(&mut table);
            let is_sparse = table.len() < table.capacity() / 8;
            assert!(!is_sparse || table.capacity() <= KEPT, "{} {}", table.len(), table.capacity());
            // A deleted entry may take room for another one until the table is moved.
            if table.capacity() < capacity / 2 {
                (moves, capacity) = (moves + 1, table.capacity());
            }
        }
        assert!(table.capacity() <= KEPT);
        assert!(moves <= 17, "{moves}");
    }

    #[test]
    fn a_table_that_is_full_does_not_shrink() {
        let mut table: HashMap<u32, u32> = (0..1000).map(|number| (number, 0)).collect();
        let capacity = table.capacity();
        shrink_if_sparse(&mut table);
        assert_eq!(table.capacity(), capacity);
    }
}
