//! What goes wrong with machines and networks, done to the nodes of a real cluster while devices talk: nothing acknowledged is lost,
//! nothing comes twice, and who is not at the edge that it happens to does not notice.

mod disks;
mod hangs;
mod kills;
mod partitions;
mod rolling;
mod scaling;
mod slow;
