//! Small programs a newcomer reads and runs; see the files beside this one.
