//! The Heronry broker.

fn main() {}
