//! The clients of the plugin, by repository, and what they requested between two answers. No clock, no thread.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::admin::schema::Session;
use crate::sessions::ratio;

/// The sessions at one moment.
#[derive(Debug)]
pub(super) struct Clients {
    at: Instant,
    /// Requests since it connected, of each session.
    requests: HashMap<u64, u64>,
    /// The busiest first.
    pub(super) repositories: Vec<Repository>,
}

/// The sessions of one repository, summed up.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Repository {
    pub(super) name: String,
    pub(super) sessions: u64,
    pub(super) references: u64,
    pub(super) in_flight: u64,
    /// Per second, since the answer before; none of the first answer.
    pub(super) rate: Option<f64>,
    hits: u64,
    misses: u64,
}

impl Clients {
    pub(super) fn new(sessions: &[Session], at: Instant, before: Option<&Self>) -> Self {
        // Of two that follow each other at once, rates mean nothing.
        let before = before.filter(|before| at > before.at);
        let mut by_name = BTreeMap::<&str, Repository>::new();
        for session in sessions {
            let repository = by_name.entry(&session.repository).or_default();
            repository.sessions += 1;
            repository.references += session.references;
            repository.in_flight += session.in_flight;
            repository.hits += session.hits;
            repository.misses += session.misses;
            if let Some(before) = before {
                // One that has connected since has requested all of it since.
                let earlier = before.requests.get(&session.id).copied().unwrap_or_default();
                let seconds = at.duration_since(before.at).as_secs_f64();
                let rate = session.requests.saturating_sub(earlier) as f64 / seconds;
                *repository.rate.get_or_insert_default() += rate;
            }
        }
        let named =
            by_name.into_iter().map(|(name, of)| Repository { name: name.to_owned(), ..of });
        let mut repositories: Vec<_> = named.collect();
        let rate = |repository: &Repository| repository.rate.unwrap_or_default();
        repositories.sort_by(|one, other| {
            let by_rate = rate(other).total_cmp(&rate(one));
            by_rate.then(other.sessions.cmp(&one.sessions))
        });
        let requests = sessions.iter().map(|session| (session.id, session.requests)).collect();
        Self { at, requests, repositories }
    }

    pub(super) fn sessions(&self) -> usize {
        self.requests.len()
    }
}

impl Repository {
    /// Since its clients connected.
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        ratio(self.hits, self.misses)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn session(id: u64, repository: &str, requests: u64) -> Session {
        Session {
            id,
            repository: repository.to_owned(),
            pid: None,
            uid: None,
            address: None,
            age_seconds: 1.0,
            references: 2,
            uploads: 0,
            in_flight: 1,
            unsent_bytes: 0,
            requests,
            hits: 3,
            misses: 1,
        }
    }

    #[test]
    fn sessions_are_summed_up_by_repository_and_the_busiest_is_first() {
        let start = Instant::now();
        let first = Clients::new(&[session(1, "a", 100), session(2, "b", 0)], start, None);
        assert_eq!(first.repositories[0].rate, None);
        let sessions = [session(1, "a", 110), session(2, "b", 20), session(3, "b", 40)];
        let second = Clients::new(&sessions, start + Duration::from_secs(2), Some(&first));
        let [b, a] = &second.repositories[..] else { panic!("{second:?}") };
        assert_eq!((a.name.as_str(), a.sessions, a.rate), ("a", 1, Some(5.0)));
        assert_eq!((b.name.as_str(), b.sessions, b.rate), ("b", 2, Some(30.0)));
        assert_eq!((b.references, b.in_flight, b.hit_ratio()), (4, 2, Some(0.75)));
        assert_eq!(second.sessions(), 3);
    }
}
