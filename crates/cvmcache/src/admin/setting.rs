//! Settings: the configuration that is in force, and where each value comes from.

use serde::Serialize;

/// A configuration key, its value in force, and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    key: String,
    value: Option<String>,
    source: SettingSource,
    meaning: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SettingSource {
    /// The configuration file.
    File,
    /// An environment variable.
    Environment,
    /// Neither names it.
    Default,
}

impl Setting {
    /// A setting. `value` is `None` if there is none; it must have no secret in it.
    pub fn new(
        key: impl Into<String>,
        value: Option<String>,
        source: SettingSource,
        meaning: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), value, source, meaning: meaning.into() }
    }
}
