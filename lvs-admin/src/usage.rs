//! What `ipvsadm -h` and `ipvsadm --version` print, for scripts that look at them.

/// `ipvsadm --version`.
pub const fn version() -> &'static str {
    "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"
}

/// `ipvsadm -h`.
pub const fn usage() -> &'static str {
    include_str!("usage.txt")
}
