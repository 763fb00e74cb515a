//! A client: a process that does one thing after another, by chance, until its time is up or it is
//! killed, and says what it has done.

use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::{Client, Reload};
use fastrand::Rng;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::SoakClient;
use super::broken::{Broken, Expect, Kept, ensure};
use super::misbehaviour;
use super::object::Object;
use super::tally::{Tally, tell_broken};

/// How long any answer may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// How many objects a client holds open, so that all of them together do not fill the cache.
const MAX_HELD: usize = 4;

/// A client and what it knows.
pub(super) struct Actor {
    pub(super) client: Client,
    pub(super) locator: Locator,
    pub(super) name: String,
    pub(super) rng: Rng,
    pub(super) tally: Tally,
    /// What the client holds open, once each.
    pub(super) held: Vec<Object>,
    /// All objects there are follow from this, and their number.
    world: u64,
    objects: u64,
    pub(super) cache_size: u64,
}

/// What a client process does; true if all promises were kept.
pub(super) fn live_and_tell(arguments: &SoakClient) -> bool {
    // Whoever kills the parent does not want to be left with clients.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let Err(broken) = live(arguments) else { return true };
    let _ = tell_broken(&broken, arguments.number);
    false
}

fn live(arguments: &SoakClient) -> Kept {
    let deadline = Instant::now() + Duration::from_millis(arguments.milliseconds);
    let name = format!("soak{}.cern.ch:1", arguments.number);
    let mut actor = Actor {
        client: connect(&arguments.locator, &name)?,
        locator: arguments.locator.clone(),
        name,
        rng: Rng::with_seed(arguments.seed.wrapping_add(arguments.number << 20)),
        tally: Tally::new(),
        held: Vec::new(),
        world: arguments.seed,
        objects: arguments.objects,
        cache_size: arguments.size,
    };
    while Instant::now() < deadline {
        actor.act(arguments.spared)?;
        // If the parent does not listen any more, there is no point in going on.
        if actor.tally.tell_sometimes().is_err() {
            return Ok(());
        }
    }
    let end = actor.leave();
    let _ = actor.tally.tell();
    end
}

fn connect(locator: &Locator, name: &str) -> Kept<Client> {
    let builder = Client::builder().name(name.to_owned()).timeout(TIMEOUT);
    builder.connect(locator).or_broken("a session")
}

impl Actor {
    /// Does something. Only who is spared reloads: who is killed before it is back leaves its
    /// references to nobody, as the protocol has it.
    fn act(&mut self, spared: bool) -> Kept {
        match self.rng.u8(..100) {
            0..40 => self.use_object(),
            40..55 => self.check_held(),
            55..65 => self.pipeline(),
            65..68 => self.list(),
            68..74 => self.ask_info(),
            74..75 => self.shrink(),
            75..79 => self.leave_breadcrumb(),
            79..85 => self.abandon_upload(),
            85..92 => misbehaviour::ask_nonsense(self),
            92..97 => misbehaviour::connect_badly(self),
            97..99 if spared => self.reload(),
            _ => self.reconnect(),
        }
    }

    /// An object, small numbers being in demand more than large ones.
    pub(super) fn pick(&mut self) -> Object {
        let place = self.rng.f64();
        Object::numbered(self.world, (place.powi(3) * self.objects as f64) as u64)
    }

    /// An object that nobody stores.
    pub(super) fn nothing(&mut self) -> Object {
        Object::numbered(!self.world, self.rng.u64(..))
    }

    /// Keeps an object that is open now, or closes it.
    pub(super) fn keep_or_close(&mut self, object: Object) -> Kept {
        if self.held.len() < MAX_HELD && !self.held.contains(&object) && self.rng.bool() {
            self.held.push(object);
            return Ok(());
        }
        self.close(&object)
    }

    pub(super) fn close(&mut self, object: &Object) -> Kept {
        self.client.close(&object.id).or_broken(format_args!("to close {}", object.id))
    }

    /// Goes away and comes back with what is open.
    fn reload(&mut self) -> Kept {
        let there = connect(&self.locator, "soak.cern.ch:placeholder")?;
        let old = std::mem::replace(&mut self.client, there);
        claimed(&old)?;
        let reload: Reload = old.announce_reload().or_broken("to announce a reload")?;
        self.pause();
        self.client = Client::finish_reload(reload).or_broken("to be back from a reload")?;
        self.tally.add("reload", 1);
        // There is no answer to being back, but whatever comes next is answered after it.
        self.held.clone().iter().try_for_each(|object| self.verify(object))
    }

    /// Goes away for good, or is gone without a word, and comes back with nothing.
    fn reconnect(&mut self) -> Kept {
        let new = connect(&self.locator, &self.name)?;
        let mut old = std::mem::replace(&mut self.client, new);
        self.held.clear();
        self.tally.add("reconnect", 1);
        claimed(&old)?;
        match self.rng.u8(..3) {
            0 => old.quit().or_broken("the end of the connection after a quit"),
            1 => misbehaviour::break_off(&mut self.rng, &mut old),
            _ => Ok(()),
        }
    }

    fn leave(&mut self) -> Kept {
        for object in std::mem::take(&mut self.held) {
            if self.rng.bool() {
                self.verify(&object)?;
                self.close(&object)?;
            }
        }
        claimed(&self.client)
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.rng.u64(..20)));
    }
}

/// That no request had two answers, or an answer of another kind.
fn claimed(client: &Client) -> Kept {
    let unclaimed = client.unclaimed_replies();
    let seen = format_args!("{unclaimed} more came");
    ensure(unclaimed == 0, "one answer to each request", seen)
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Broken::new("the system to cooperate", error)
    }
}
