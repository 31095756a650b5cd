//! Arrows point down; every file says what it is for.
