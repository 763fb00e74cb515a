//! The plugin's part of the administration socket: named gauges and commands.

use serde_json::{Map, Value};
use thiserror::Error;

/// The arguments of a command, by name: the JSON object that was sent with it.
pub type Arguments = Map<String, Value>;

/// What an administrator can learn of a plugin, and have it do, besides what every server has.
///
/// All methods are called on threads of the administration socket, at the same time as callbacks, and
/// may wait: no client waits for them. A panic in one is logged and answered with an error.
///
/// ```
/// use cvmcache::admin::{Administration, Arguments, Command, CommandError, Gauge, Value};
///
/// struct Store;
///
/// impl Administration for Store {
///     fn gauges(&self) -> Vec<Gauge> {
///         vec![Gauge::new("objects", 17, "Objects in the cache")]
///     }
///
///     fn commands(&self) -> Vec<Command> {
///         vec![Command::new("forget", "Forget what is known of a repository: {\"repository\": NAME}")]
///     }
///
///     fn execute(&self, command: &str, arguments: &Arguments) -> Result<Value, CommandError> {
///         let Some(repository) = arguments.get("repository").and_then(Value::as_str) else {
///             return Err(CommandError::Arguments("name the repository".to_owned()));
///         };
///         Ok(Value::from(format!("{command} {repository}: done")))
///     }
/// }
/// ```
pub trait Administration: Send + Sync {
    /// What the plugin holds and has counted at this moment.
    fn gauges(&self) -> Vec<Gauge> {
        Vec::new()
    }

    /// The commands that [`execute`](Self::execute) knows.
    fn commands(&self) -> Vec<Command> {
        Vec::new()
    }

    /// Executes one of the [`commands`](Self::commands), and returns what is to be answered. No other
    /// command is ever passed.
    ///
    /// # Errors
    ///
    /// [`CommandError`], whose text the administrator is shown.
    fn execute(&self, command: &str, arguments: &Arguments) -> Result<Value, CommandError> {
        let _ = arguments;
        Err(CommandError::Failed(format!("{command} does nothing")))
    }
}

/// A value with a name, such as a number of objects, or the state of a server behind the plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) description: String,
}

/// A command of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub(crate) name: String,
    pub(crate) description: String,
}

/// Why a command was not executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The arguments are not those of the command: what to write instead.
    #[error("{0}")]
    Arguments(String),
    /// It cannot be done now: why, and what to do about it.
    #[error("{0}")]
    Failed(String),
}

impl Gauge {
    /// A gauge; its unit is part of the name, as in `used_bytes`.
    pub fn new(
        name: impl Into<String>,
        value: impl Into<Value>,
        description: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), value: value.into(), description: description.into() }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

impl Command {
    /// A command; the description has its arguments.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self { name: name.into(), description: description.into() }
    }
}
