//! What every I/O backend of LVS in Rust shares: sources and sinks, worker loop, taps, host stand-in.
