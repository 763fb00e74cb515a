//! The names of object types, on the command line and in listings.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use cvmcache::plugin::ObjectType;

/// The name of an object type.
pub(crate) fn name(object_type: ObjectType) -> &'static str {
    match object_type {
        ObjectType::Regular => "regular",
        ObjectType::Catalog => "catalog",
        ObjectType::Volatile => "volatile",
        _ => "unknown",
    }
}

/// Parses the name of an object type.
pub(crate) fn parser() -> impl TypedValueParser<Value = ObjectType> {
    let find = |text: String| ObjectType::ALL.into_iter().find(|known| name(*known) == text);
    PossibleValuesParser::new(ObjectType::ALL.map(name))
        .try_map(move |text| find(text).ok_or("no type of object"))
}
