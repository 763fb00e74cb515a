//! The memory that all connections take together, and how much of it each may take. Pure: the event loop
//! tells it what changes.

use crate::Limits;
use crate::quota::Quota;

#[derive(Debug)]
pub(crate) struct Buffers {
    /// How much all connections take, as of their last turns.
    pub(crate) held: usize,
    quota: Quota,
    max_buffered: usize,
    /// What the largest reply takes.
    request: usize,
}

impl Buffers {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            held: 0,
            quota: Quota::new(limits.max_buffered_total.unwrap_or(usize::MAX)),
            max_buffered: limits.max_buffered,
            request: limits.listing_part.max(limits.max_object_size as usize),
        }
    }

    /// How much one of so many connections may take that takes `own` by now: if it does, no more of its
    /// requests are taken. At least 1, so that one without requests in flight and without replies to send is
    /// always read.
    ///
    /// A request may take its memory after this was looked at, so one is set aside. Only a connection that
    /// may take less than that exceeds the bound, by one request.
    pub(crate) fn max_held(&self, own: usize, connections: usize) -> usize {
        let allowance = self.quota.allowance(self.held, own, connections);
        allowance.saturating_sub(self.request).clamp(1, self.max_buffered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn buffers(total: usize) -> Buffers {
        Buffers::new(&Limits {
            max_object_size: 4 * KIB as u32,
            max_buffered: 64 * KIB,
            max_buffered_total: Some(total),
            listing_part: 4 * KIB,
            ..Limits::default()
        })
    }

    /// Connections that take as much as they may, request by request, and give nothing back. Returns what
    /// they have.
    fn fill(buffers: &mut Buffers, connections: usize) -> Vec<usize> {
        let mut have = vec![0; connections];
        for own in &mut have {
            while *own < buffers.max_held(*own, connections) {
                *own += 4 * KIB;
                buffers.held += 4 * KIB;
            }
        }
        have
    }

    #[test]
    fn a_connection_alone_may_take_its_own_limit() {
        assert_eq!(buffers(1024 * KIB).max_held(0, 1), 64 * KIB);
        assert_eq!(buffers(1024 * KIB).max_held(0, 1000), 64 * KIB, "the others take nothing");
    }

    #[test]
    fn connections_that_take_all_they_can_stay_below_the_total() {
        let mut buffers = buffers(1024 * KIB);
        let have = fill(&mut buffers, 100);
        assert!(buffers.held <= 1024 * KIB, "{}", buffers.held);
        assert!(have.iter().all(|own| *own > 0));
    }

    #[test]
    fn a_connection_that_takes_nothing_is_read_however_much_the_others_take() {
        let mut buffers = buffers(1024 * KIB);
        buffers.held = 10_000 * KIB;
        assert_eq!(buffers.max_held(0, 1000), 1);
        assert_eq!(buffers.max_held(64 * KIB, 1000), 1, "and one that takes much is not");
    }
}
