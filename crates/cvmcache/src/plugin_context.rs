//! The context that a plugin is made in: its configuration, and a handle on its server.

use crate::{Options, ServerHandle};

/// What [`run`](crate::run) gives to the function that makes the plugin.
///
/// ```
/// use cvmcache::{Options, PluginContext, ServerHandle};
///
/// // In the test of a plugin.
/// let options = Options::parse(b"CVMFS_CACHE_PLUGIN_SIZE=200");
/// let context = PluginContext::new(options, ServerHandle::new());
/// assert!(context.options().get("CVMFS_CACHE_PLUGIN_SIZE").is_some());
/// ```
#[derive(Debug)]
pub struct PluginContext {
    options: Options,
    handle: ServerHandle,
}

impl PluginContext {
    /// A context as `run` makes it, for a main function of your own and for tests.
    pub fn new(options: Options, handle: ServerHandle) -> Self {
        Self { options, handle }
    }

    /// The plugin's configuration.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A handle on the server that will serve the plugin, for the plugin to keep: it asks clients to
    /// detach, and ends the server.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }
}
