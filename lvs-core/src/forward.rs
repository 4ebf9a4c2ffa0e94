//! How packets reach a real server and come back: one file for each forward method.
