//! Listings: cut into parts that fit into a frame, and dropped with their session.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use cvmcache_proto::ReplyBody;
use tracing::debug;

use super::{OpenSession, Service, guard, texts};
use crate::plugin::{Capabilities, ListEntry, Listing, ObjectId, ObjectType, PluginResult, Status};

/// What an entry takes on the wire, at most, besides its description: tags and lengths, the hash
/// and the flag.
const ENTRY_OVERHEAD: usize = ObjectId::DIGEST_LEN + 28;

/// The unfinished listings of a session.
#[derive(Default)]
pub(super) struct Listings {
    /// By number; `None` while the plugin works on one, since the lock is not held then.
    pub(super) open: HashMap<u64, Option<Listing>>,
    last_id: u64,
}

impl Service {
    /// Starts a listing, or continues one.
    pub(super) fn list(
        &self,
        open: &OpenSession,
        listing: u64,
        object_type: ObjectType,
    ) -> ReplyBody {
        match self.list_part(open, listing, object_type) {
            Ok((listing, entries, last)) => {
                ReplyBody::List { result: Ok(()), listing, last, entries }
            }
            Err(status) => {
                ReplyBody::List { result: Err(status), listing, last: true, entries: Vec::new() }
            }
        }
    }

    fn list_part(
        &self,
        open: &OpenSession,
        listing: u64,
        object_type: ObjectType,
    ) -> PluginResult<(u64, Vec<ListEntry>, bool)> {
        self.require(Capabilities::LIST)?;
        let (id, mut listing) = if listing == 0 {
            self.start(open, object_type)?
        } else {
            let mut listings = open.listings.lock();
            let place = listings.open.get_mut(&listing).ok_or(Status::Malformed)?;
            (listing, place.take().ok_or(Status::Malformed)?)
        };
        let part = guard("next entry of a listing", || self.take_part(&mut listing));
        if let Ok((_, false)) = part {
            open.listings.lock().open.insert(id, Some(listing));
        } else {
            self.forget_listing(open, id);
            drop_listing(listing);
        }
        part.map(|(entries, last)| (id, entries, last))
    }

    fn start(&self, open: &OpenSession, object_type: ObjectType) -> PluginResult<(u64, Listing)> {
        let mut listings = open.listings.lock();
        if listings.open.len() >= self.limits.max_listings {
            debug!(session = %open.session, "too many open listings");
            return Err(Status::NoSpace);
        }
        if !self.totals.listings.admits(listings.open.len(), self.totals.sessions()) {
            debug!(session = %open.session, "too many open listings in all");
            return Err(Status::NoSpace);
        }
        listings.last_id += 1;
        let id = listings.last_id;
        listings.open.insert(id, None);
        self.totals.listings.add(1);
        drop(listings);
        let list = || self.plugin.list(&open.session, object_type);
        let listing = self.call(Capabilities::LIST, "list", list);
        let listing = listing.inspect_err(|_| self.forget_listing(open, id))?;
        Ok((id, listing))
    }

    fn forget_listing(&self, open: &OpenSession, id: u64) {
        if open.listings.lock().open.remove(&id).is_some() {
            self.totals.listings.remove(1);
        }
    }

    /// The next entries, and whether they are the last ones.
    fn take_part(&self, listing: &mut Listing) -> PluginResult<(Vec<ListEntry>, bool)> {
        // The part is decoded, then encoded: if there is no memory for it twice, there is no listing.
        let twice = 2 * (self.limits.listing_part + self.limits.max_text);
        Vec::<u8>::new().try_reserve_exact(twice).map_err(|_| Status::NoSpace)?;
        let mut entries = Vec::new();
        let mut size = 0;
        while size < self.limits.listing_part {
            let Some(entry) = listing.next() else { return Ok((entries, true)) };
            let mut entry = entry?;
            if let Some(description) = &mut entry.description {
                // The memory may be the plugin's, and its code run when it is dropped: that must be here,
                // behind the guard. The message takes the copy over.
                let len = texts::cut_at(description, self.limits.max_text);
                *description = Bytes::copy_from_slice(&description[..len]);
                size += len;
            }
            size += ENTRY_OVERHEAD;
            entries.try_reserve(1).map_err(|_| Status::NoSpace)?;
            entries.push(entry);
        }
        Ok((entries, false))
    }
}

/// The plugin's code runs when a listing is dropped, too.
fn drop_listing(listing: Listing) {
    let _logged = guard("drop of a listing", || {
        drop(listing);
        Ok(())
    });
}

impl Listings {
    /// Drops all listings of a session that has ended.
    pub(super) fn drop_all(self) {
        self.open.into_values().flatten().for_each(drop_listing);
    }
}

impl fmt::Debug for Listings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.open.keys()).finish()
    }
}
