//! Files: the write-ahead log's writer thread, segment and checkpoint files.
