//! Where the log goes: what matters to standard error, everything to the debug log.

use std::backtrace::Backtrace;
use std::fs::File;
use std::io;
use std::panic;
use std::sync::Mutex;

use tracing::error;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::DEBUG_LOG;
use crate::{Options, OptionsError};

/// Starts logging, of panics too.
pub(super) fn start(options: &Options) -> Result<(), OptionsError> {
    let stderr = layer().with_writer(io::stderr).with_target(false).with_filter(LevelFilter::INFO);
    let debug_log = match options.get(DEBUG_LOG) {
        None => None,
        Some(path) => {
            let file = File::options().create(true).append(true).open(path);
            let file = file.map_err(|error| options.bad_value(DEBUG_LOG, error))?;
            Some(layer().with_writer(Mutex::new(file)))
        }
    };
    // A program that has set up logging for itself keeps it.
    let _ = tracing_subscriber::registry().with(stderr).with(debug_log).try_init();
    panic::set_hook(Box::new(|panic| {
        error!(%panic, backtrace = %Backtrace::force_capture(), "panic");
    }));
    Ok(())
}
