//! The limits of this crate, in one place.

/// Subjects whose routing result [`Interest`](crate::Interest) keeps in each half of its cache. There are two halves:
/// when the young one is full it becomes the old one, and what was in the old one is forgotten.
pub const CACHED_SUBJECTS: usize = 4096;

/// Subscribers named by the results in one half of the cache. A few subjects with a large fan-out fill it as well.
pub const CACHED_SUBSCRIBERS: usize = 64 * 1024;

/// The longest subject in bytes whose result is kept. Real ones are far shorter; hostile ones should not fill the cache.
pub const CACHED_SUBJECT_LEN: usize = 512;
