//! Settings: the configuration that is in force, and where each value comes from.

use serde::Serialize;

use crate::ConfigKey;

/// A configuration key, its value in force, and where that comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    key: String,
    value: Option<String>,
    source: SettingSource,
    default: Option<String>,
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
    /// A setting. `value` is the one in force, `None` if there is none or it is not known; it must have no
    /// secret in it.
    pub fn new(
        key: impl Into<String>,
        value: Option<String>,
        source: SettingSource,
        meaning: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), value, source, default: None, meaning: meaning.into() }
    }

    /// What it is by default, as a value or in words.
    pub fn default_text(mut self, text: impl Into<String>) -> Self {
        self.default = Some(text.into());
        self
    }

    /// Tells the value that is in force, unless it is told already.
    pub(crate) fn set_in_force(&mut self, key: &ConfigKey, value: impl Into<String>) {
        if self.key == key.name() {
            self.value.get_or_insert_with(|| value.into());
        }
    }
}
