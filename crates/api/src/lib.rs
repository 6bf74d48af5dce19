//! The resources people write: types, defaults, validation.
