//! `cvmcache top`: a live view of a plugin on a terminal.
//!
//! `sampler` polls the plugin, `administration` its administration socket and `scraper` its metrics, on threads
//! of their own, so that the view never blocks; `state` has the results, `view` draws them. Both are pure.
//! This file has the terminal and the keys.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use clap::Args;
use cvmcache::threads;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;

use crate::Verdict;
use crate::admin::Admin;
use crate::error::{self, Result};
use crate::remote::Remote;

mod administration;
mod clients;
mod interval;
mod metrics;
mod sampler;
mod scraper;
mod state;
mod view;

use sampler::Sampler;
use state::{State, Update};

const EXAMPLES: &str = "\
Examples:
  cvmcache top unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache top --metrics node7:9469 tcp=node7:4242
  cvmcache top --interval 10 --no-list    # CVMCACHE_LOCATOR is set

Keys: q, Esc or Ctrl-C quits, + and - change the interval, r asks at once.

To count objects, all of them are listed repeatedly, which costs a plugin with many objects time.
So after each listing, there is a pause of ten times as long as it took.

If the plugin ends, top shows that, and reconnects when it is back.";

/// How often ages on the screen are redrawn, without an update.
const REDRAW: Duration = Duration::from_secs(1);

/// How long the administration socket may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many events are queued at most; more block their sender: a listing can be fast.
const EVENTS: usize = 64;

/// Watch fill, objects, sessions and requests, live
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    #[command(flatten)]
    remote: Remote,
    /// The polling interval, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: Duration,
    /// Do not list objects to count them
    #[arg(long)]
    no_list: bool,
    /// Where the plugin serves its metrics, to show rates and latencies; by default, they come from its
    /// administration socket or, without one, from where its configuration has the metrics
    #[arg(long, value_name = "URL|HOST:PORT|PORT")]
    metrics: Option<String>,
    /// The administration socket [default: where plugins with this locator have it]
    #[arg(long, value_name = "PATH")]
    admin: Option<PathBuf>,
}

/// Standard output is no terminal.
#[derive(Debug, Error)]
#[error("top needs a terminal; for scripts, there is cvmcache info")]
pub(crate) struct NoTerminal;

impl From<NoTerminal> for error::Error {
    fn from(error: NoTerminal) -> Self {
        Self::usage(error)
    }
}

/// What the view reacts to.
enum Event {
    Update(Update),
    Key(KeyEvent),
    /// The terminal was resized, or is to be drawn for another reason.
    Redraw,
    End,
}

/// The terminal, which is as it was before when this is dropped. After a panic, too.
struct Screen(DefaultTerminal);

impl Top {
    pub(crate) fn run(self) -> Result<Verdict> {
        if !io::stdout().is_terminal() {
            return Err(NoTerminal.into());
        }
        // Connects before the terminal is switched, so that an error stays visible.
        let client = self.remote.connect("top")?;
        let locator = self.remote.locator()?;
        let mut state = State::new(&locator.to_string(), self.interval, !self.no_list);
        let pid = client.plugin_pid();
        let patience = self.remote.timeout().min(PATIENCE);
        state.admin = match self.admin {
            Some(path) => Some(administration::named(path, patience)?),
            None => Admin::of(&locator, pid, patience).filter(administration::answers),
        };
        state.metrics_url = match &self.metrics {
            Some(text) => Some(scraper::url(text)),
            None if state.admin.is_some() => None,
            None => pid.and_then(scraper::of_process),
        };
        let in_colour = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;

        let mut screen = Screen(ratatui::try_init()?);
        let (sender, events) = mpsc::sync_channel(EVENTS);
        watch_signals(sender.clone())?;
        watch_terminal(sender.clone())?;
        let send = move |update| sender.send(Event::Update(update)).is_ok();
        let sampler = Sampler::start(self.remote, locator, client, &state, send)?;
        loop {
            let now = Instant::now();
            screen.0.draw(|frame| view::draw(frame, &state, now, in_colour))?;
            match events.recv_timeout(REDRAW) {
                Ok(Event::Update(update)) => {
                    if state.apply(update, Instant::now()) {
                        sampler.recount();
                    }
                }
                Ok(Event::Key(key)) => match action(key) {
                    Some(Action::Quit) => return Ok(Verdict::Good),
                    Some(Action::Refresh) => sampler.refresh(),
                    Some(Action::Slower) => sampler.set_interval(state.slower()),
                    Some(Action::Faster) => sampler.set_interval(state.faster()),
                    None => {}
                },
                Ok(Event::Redraw) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return Ok(Verdict::Good),
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to bring back.
        let _ = ratatui::try_restore();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Quit,
    Refresh,
    Slower,
    Faster,
}

fn action(key: KeyEvent) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Char('r') => Action::Refresh,
        KeyCode::Char('+' | '=') => Action::Slower,
        KeyCode::Char('-') => Action::Faster,
        _ => return None,
    })
}

fn watch_terminal(events: SyncSender<Event>) -> io::Result<()> {
    threads::spawn("terminal", move || {
        loop {
            let event = match event::read() {
                Ok(event::Event::Key(key)) => Event::Key(key),
                Ok(_) => Event::Redraw,
                // A terminal that cannot be read has no command to stop, either.
                Err(_) => Event::End,
            };
            let ends = matches!(event, Event::End);
            if events.send(event).is_err() || ends {
                return;
            }
        }
    })?;
    Ok(())
}

/// A signal ends the view, rather than the process with the terminal as it is.
fn watch_signals(events: SyncSender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    threads::spawn("signals", move || {
        if signals.forever().next().is_some() {
            // If the receiver is gone, the view has ended already.
            let _ = events.send(Event::End);
        }
    })?;
    Ok(())
}

fn interval(text: &str) -> std::result::Result<Duration, &'static str> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    interval
        .filter(|interval| state::INTERVALS.contains(interval))
        .ok_or("write a number of seconds from 0.1 to 3600")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_help_line_lists() {
        let action = |code, modifiers| super::action(KeyEvent::new(code, modifiers));
        let plain = |c| action(KeyCode::Char(c), KeyModifiers::NONE);
        assert_eq!(plain('q'), Some(Action::Quit));
        assert_eq!(action(KeyCode::Esc, KeyModifiers::NONE), Some(Action::Quit));
        assert_eq!(action(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(plain('c'), None);
        assert_eq!([plain('+'), plain('=')], [Some(Action::Slower), Some(Action::Slower)]);
        assert_eq!(plain('-'), Some(Action::Faster));
        assert_eq!(plain('r'), Some(Action::Refresh));
        assert_eq!(action(KeyCode::Char('r'), KeyModifiers::CONTROL), None);
    }

    #[test]
    fn an_interval_is_neither_too_short_nor_too_long() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "0.01", "-1", "NaN", "inf", "1e300", "4000", "2s"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
