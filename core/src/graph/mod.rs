//! What one node does.
