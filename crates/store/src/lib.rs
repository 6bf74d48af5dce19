//! Where resources live, as one ordered stream of changes: memory, file, directory.
