//! A device's state in JSON: by its name.

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::engine::DeviceState;

/// Writes the name.
pub(crate) fn serialize<S: Serializer>(state: &DeviceState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.name())
}

/// Reads a name.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DeviceState, D::Error> {
    let name = String::deserialize(from)?;
    let state = DeviceState::ALL.into_iter().find(|state| state.name() == name);
    state.ok_or_else(|| de::Error::custom(format!("{name} is no state of a device")))
}
