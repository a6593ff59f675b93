//! Templates as a whole; the built-in ones word for word.
