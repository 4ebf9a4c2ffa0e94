//! Connections: the record, the table that finds it from both directions, the timer wheel, the states.
