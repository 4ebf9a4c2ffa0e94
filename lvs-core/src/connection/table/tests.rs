//! The table against a plain list of connections, searched newest first.
