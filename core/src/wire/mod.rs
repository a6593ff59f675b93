//! Codecs between peers.
