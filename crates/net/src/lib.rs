//! Worker runtime, listeners, buffers, original destination; the only unsafe code.
