//! Whole servers on a virtual clock, network and disk, from one seed.
