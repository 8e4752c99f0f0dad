//! Schedules in a stream.
