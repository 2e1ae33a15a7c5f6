//! Groups, from outside: what is proposed is committed, once, in order, and found again.

mod groups;
