//! A client process: random operations, one after the other, until its time is up or it is killed.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::{Client, Reload};
use fastrand::Rng;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use thiserror::Error;

use super::actor::Actor;
use super::counts::{Counter, report_violation};
use super::hostile;
use super::plugin::connect;
use super::violation::{CheckResult, Expect, ensure};

/// What a client process of a [`Soak`](super::Soak) has to know.
///
/// It is passed as an argument of a command line: [`Display`](fmt::Display) writes what
/// [`FromStr`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoakClient {
    pub(super) locator: Locator,
    /// Each client has another number.
    pub(super) number: u64,
    /// The seed of all objects and clients.
    pub(super) seed: u64,
    /// How many objects there are.
    pub(super) objects: u64,
    /// The size of the cache, in bytes.
    pub(super) cache_size: u64,
    pub(super) time: Duration,
    /// The client is not killed, so it may reload: a client that is killed while it is away would
    /// leave its references behind, as the protocol has it.
    pub(super) may_reload: bool,
}

/// The text describes no client process.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} describes no client of a soak test: it is made by the program that runs the test")]
pub struct ParseClientError(String);

impl SoakClient {
    /// Runs the client in this process, and reports to the parent on standard output. False if the
    /// plugin has violated the protocol.
    pub fn run(&self) -> bool {
        // A client must not outlive its parent.
        let _ = set_pdeathsig(Signal::SIGKILL);
        let Err(violation) = self.act_until_deadline() else { return true };
        // Without a parent, there is no reader.
        let _ = report_violation(&violation, self.number);
        false
    }

    fn act_until_deadline(&self) -> CheckResult {
        let deadline = Instant::now() + self.time;
        let name = format!("soak{}.cern.ch:1", self.number);
        let mut actor = Actor {
            client: open_session(&self.locator, &name)?,
            locator: self.locator.clone(),
            name,
            rng: Rng::with_seed(self.seed.wrapping_add(self.number << 20)),
            counter: Counter::new(),
            held: Vec::new(),
            world: self.seed,
            objects: self.objects,
            cache_size: self.cache_size,
        };
        while Instant::now() < deadline {
            actor.act(self.may_reload)?;
            // The parent has ended.
            if actor.counter.report_at_interval().is_err() {
                return Ok(());
            }
        }
        let end = actor.leave();
        let _ = actor.counter.report();
        end
    }
}

impl SoakClient {
    fn parse(text: &str) -> Option<Self> {
        // A path may have blanks, so the locator comes last.
        let mut words = text.splitn(7, ' ');
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            number: number()?,
            seed: number()?,
            objects: number()?,
            cache_size: number()?,
            time: Duration::from_millis(number()?),
            may_reload: words.next()?.parse().ok()?,
            locator: words.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for SoakClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { locator, number, seed, objects, cache_size, time, may_reload } = self;
        let milliseconds = time.as_millis();
        write!(f, "{number} {seed} {objects} {cache_size} {milliseconds} {may_reload} {locator}")
    }
}

impl FromStr for SoakClient {
    type Err = ParseClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| ParseClientError(text.to_owned()))
    }
}

fn open_session(locator: &Locator, name: &str) -> CheckResult<Client> {
    connect(locator, name.to_owned()).expect_ok("a session")
}

impl Actor {
    /// Does one operation, chosen at random.
    fn act(&mut self, may_reload: bool) -> CheckResult {
        match self.rng.u8(..100) {
            0..40 => self.use_object(),
            40..55 => self.check_held(),
            55..65 => self.pipeline(),
            65..68 => self.list(),
            68..74 => self.ask_info(),
            74..75 => self.shrink(),
            75..79 => self.leave_breadcrumb(),
            79..85 => self.abandon_upload(),
            85..92 => hostile::send_invalid_request(self),
            92..97 => hostile::break_protocol(self),
            97..99 if may_reload => self.reload(),
            _ => self.reconnect(),
        }
    }

    /// Reloads: the references stay.
    fn reload(&mut self) -> CheckResult {
        let placeholder = open_session(&self.locator, "soak.cern.ch:placeholder")?;
        let old = std::mem::replace(&mut self.client, placeholder);
        check_replies(&old)?;
        let reload: Reload = old.announce_reload().expect_ok("to announce a reload")?;
        self.pause();
        self.client = Client::finish_reload(reload).expect_ok("to finish a reload")?;
        self.counter.add("reload", 1);
        // The end of a reload has no reply, but the next reply comes after it.
        self.held.clone().iter().try_for_each(|object| self.verify(object))
    }

    /// Quits or just disconnects, and opens another session.
    fn reconnect(&mut self) -> CheckResult {
        let new = open_session(&self.locator, &self.name)?;
        let mut old = std::mem::replace(&mut self.client, new);
        self.held.clear();
        self.counter.add("reconnect", 1);
        check_replies(&old)?;
        match self.rng.u8(..3) {
            0 => old.quit().expect_ok("the end of the connection after a quit"),
            1 => hostile::disconnect_mid_frame(&mut self.rng, &mut old),
            _ => Ok(()),
        }
    }

    fn leave(&mut self) -> CheckResult {
        for object in std::mem::take(&mut self.held) {
            if self.rng.bool() {
                self.verify(&object)?;
                self.close(&object)?;
            }
        }
        check_replies(&self.client)
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis(self.rng.u64(..20)));
    }
}

/// Checks that no request had two replies, or a reply of another kind.
fn check_replies(client: &Client) -> CheckResult {
    let unclaimed = client.unclaimed_replies();
    let seen = format_args!("{unclaimed} more came");
    ensure(unclaimed == 0, "one reply to each request", seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_parsed_from_its_argument() {
        let client = SoakClient {
            locator: "unix=/a b/socket".parse().unwrap(),
            number: 1,
            seed: 2,
            objects: 3,
            cache_size: 4,
            time: Duration::from_millis(5),
            may_reload: true,
        };
        assert_eq!(client.to_string().parse(), Ok(client));
        for text in ["", "1 2 3 4 5 true", "1 2 3 4 5 maybe unix=/a", "x 2 3 4 5 true unix=/a"] {
            assert!(text.parse::<SoakClient>().is_err(), "{text}");
        }
    }
}
