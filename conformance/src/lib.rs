//! Recorded behaviour of Linux IPVS, and the runner that replays it through lvs-core.
