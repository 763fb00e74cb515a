//! What a plugin is made from.

use crate::{Options, ServerHandle};

/// What a plugin is made from: its configuration, and a handle on the server that is about to serve
/// it.
///
/// ```
/// use cvmcache::{Options, PluginContext, ServerHandle};
///
/// // For a test; `run` makes one for a program.
/// let options = Options::parse(b"CVMFS_CACHE_PLUGIN_SIZE=500");
/// let context = PluginContext::new(options, ServerHandle::disconnected());
/// assert_eq!(context.options().get("CVMFS_CACHE_PLUGIN_SIZE"), Some("500".as_ref()));
/// ```
#[derive(Debug, Clone)]
pub struct PluginContext {
    options: Options,
    handle: ServerHandle,
}

impl PluginContext {
    /// A context with this configuration and this handle.
    pub fn new(options: Options, handle: ServerHandle) -> Self {
        Self { options, handle }
    }

    /// The configuration.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The handle by which the plugin asks clients to detach, or ends the server. The server begins
    /// after the plugin was made.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }
}
