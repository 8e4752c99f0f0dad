//! Clients and tools that others wrote, against this server and the real one.
//!
//! The tests of this crate print one line for each case and the totals, and say by name what is skipped and
//! why. `HEADWATER_BIN` names our server (default: the one that cargo built beside the test), `NATS_SERVER_BIN`
//! the real one.

mod cases;
mod js;
mod judge;
mod keys;
mod load;
mod rng;
mod target;
pub mod trio;

pub use cases::{Case, Cases, Outcome, run_all};
pub use js::{Delivered, Js, Lost};
pub use load::Load;
pub use rng::Dice;
pub use target::{Target, targets};
