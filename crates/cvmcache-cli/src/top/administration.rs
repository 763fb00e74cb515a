//! Asks the plugin's administration socket for statistics and sessions, on a thread of its own.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::interval::{Command, pause};
use super::metrics::Sample;
use super::state::Update;
use crate::admin::schema::{Sessions, Statistics};
use crate::admin::{Admin, Error};

/// Sends sessions, and samples unless those come from the metrics, until the view has ended.
pub(super) fn ask_repeatedly(
    admin: &Admin,
    mut interval: Duration,
    has_metrics: bool,
    send: impl Fn(Update) -> bool,
    commands: &Receiver<Command>,
) {
    loop {
        let ask = || {
            let is_open = has_metrics || send(sample(admin)?);
            Ok::<_, Error>(is_open && send(clients(admin)?))
        };
        let is_open = ask().unwrap_or_else(|error| {
            let is_open = has_metrics || send(Update::NotMeasured(error.to_string()));
            is_open && send(Update::NoClients)
        });
        if !is_open || !pause(&mut interval, commands, Duration::ZERO) {
            return;
        }
    }
}

/// The administration socket at a path, which has to answer.
pub(super) fn named(path: PathBuf, timeout: Duration) -> Result<Admin, Error> {
    let admin = Admin::new(path, timeout);
    admin.get::<Statistics>("/v1/statistics")?;
    Ok(admin)
}

/// True if this user is answered.
pub(super) fn answers(admin: &Admin) -> bool {
    admin.get::<Statistics>("/v1/statistics").is_ok()
}

fn sample(admin: &Admin) -> Result<Update, Error> {
    let statistics = admin.get::<Statistics>("/v1/statistics")?.value;
    Ok(Update::Measured { sample: Sample::of(&statistics), at: Instant::now() })
}

fn clients(admin: &Admin) -> Result<Update, Error> {
    let sessions = admin.get::<Sessions>("/v1/sessions")?.value.sessions;
    Ok(Update::Clients { sessions, at: Instant::now() })
}
