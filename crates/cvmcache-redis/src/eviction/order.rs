//! Which objects are evicted first: volatile ones before others, and the least recently used first. There
//! is no I/O in this file.

use std::collections::HashMap;

use crate::scripts::Candidate;

/// The objects to be evicted for `bytes` bytes, in order: volatile ones first, and those used longest
/// ago first among equals. Each shard has returned up to `limit` of each kind. Objects that are younger
/// than the youngest of a shard that may have more are left for the next round.
pub(crate) fn choose(candidates: Vec<Candidate>, limit: usize, bytes: u64) -> Vec<Candidate> {
    let (volatile, lasting): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| candidate.volatile);
    let (mut chosen, all) = oldest(volatile, limit);
    if all {
        chosen.extend(oldest(lasting, limit).0);
    }
    let mut sum = 0u64;
    let enough = chosen.iter().position(|candidate| {
        sum = sum.saturating_add(candidate.cost);
        sum >= bytes
    });
    chosen.truncate(enough.map_or(usize::MAX, |last| last + 1));
    chosen
}

/// Those of one kind that are certainly the oldest, in order, and whether there are no others.
fn oldest(candidates: Vec<Candidate>, limit: usize) -> (Vec<Candidate>, bool) {
    let mut timed: Vec<_> = candidates.into_iter().map(|c| (time(&c.used), c)).collect();
    timed.sort_by(|(a, x), (b, y)| a.total_cmp(b).then_with(|| x.id.cmp(&y.id)));
    let mut counts = HashMap::new();
    // In order of time, the first shard that reaches `limit` is the one whose youngest is oldest.
    let known = timed.iter().position(|(_, candidate)| {
        let count = counts.entry(candidate.shard).or_insert(0);
        *count += 1;
        *count >= limit
    });
    let keep = known.map_or(timed.len(), |last| last + 1);
    timed.truncate(keep);
    (timed.into_iter().map(|(_, candidate)| candidate).collect(), known.is_none())
}

fn time(text: &[u8]) -> f64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::Shard;

    fn shard(number: u8) -> Shard {
        Shard::all().nth(number.into()).unwrap()
    }

    fn candidate(in_shard: u8, volatile: bool, used: u64, cost: u64) -> Candidate {
        let id = format!("{in_shard}-{used}").into_bytes();
        Candidate { shard: shard(in_shard), volatile, id, used: used.to_string().into(), cost }
    }

    proptest! {
        /// One index over all shards is the model.
        #[test]
        fn the_oldest_of_all_shards_are_chosen(
            objects in proptest::collection::btree_map(any::<u16>(), (0..4u8, any::<bool>()), 0..60),
            limit in 1..6usize,
            bytes in 1..30u64,
        ) {
            let all: Vec<_> = objects.into_iter()
                .map(|(used, (shard, volatile))| candidate(shard, volatile, used.into(), 1))
                .collect();
            let told = |number| [true, false].map(|volatile| {
                let of_kind = all.iter().filter(move |c| c.shard == shard(number) && c.volatile == volatile);
                of_kind.take(limit).cloned().collect::<Vec<_>>()
            });
            let candidates: Vec<_> = (0..4).flat_map(told).flatten().collect();
            let chosen = choose(candidates, limit, bytes);
            let mut expected = all.clone();
            expected.sort_by_key(|c| !c.volatile);
            expected.truncate(bytes as usize);
            prop_assert!(expected.starts_with(&chosen), "{chosen:?} of {expected:?}");
            prop_assert!(chosen.len() >= limit.min(expected.len()).min(bytes as usize));
        }
    }

    #[test]
    fn an_object_whose_time_of_use_is_no_number_is_evicted_first() {
        let nonsense = Candidate { used: b"\xff".to_vec(), ..candidate(0, false, 0, 5) };
        let chosen = choose(vec![candidate(1, false, 7, 5), nonsense.clone()], 8, 5);
        assert_eq!(chosen, [nonsense]);
    }
}
