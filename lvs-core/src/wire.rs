//! Bytes on the wire: parsing with offsets kept, rewriting in place, checksums. Knows nothing of load balancing.
