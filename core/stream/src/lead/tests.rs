//! Scripts: what happens to a consumer, and what its leader does. Lines with `>` are inputs, the others what comes out.

mod ahead;
mod model;
mod scripts;
mod world;
