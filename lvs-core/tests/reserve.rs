//! A director on a machine with too little memory: an error, not the end of the program; and how much it takes is known
//! before. An allocator with a limit stands for the machine, so this file has one test.

use std::alloc::System;

use cap::Cap;
use lvs_core::{Director, DirectorConfig, OutOfMemory, Seed};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Left to the test and its runner for themselves.
const SPARE: usize = 16 << 10;

/// Makes a director with so many bytes left, and then without a limit.
fn with_memory(left: usize, config: &DirectorConfig) -> Result<usize, OutOfMemory> {
    let config = config.clone();
    let before = MEMORY.allocated();
    MEMORY.set_limit(before + left).expect("more than is in use");
    let director = Director::try_new(config, Seed::new(1));
    MEMORY.set_limit(usize::MAX).expect("no limit");
    let taken = MEMORY.allocated().saturating_sub(before);
    let outcome = director.map(|_| taken);
    // The configuration went with the director, or with the attempt.
    assert!(MEMORY.allocated() <= before, "nothing is kept: {} bytes", MEMORY.allocated() - before);
    outcome
}

#[test]
fn a_director_without_memory_is_an_error_and_how_much_it_takes_is_known() {
    let default = DirectorConfig::default();
    let small = default.clone().with(|config| {
        config.connections_max = 128;
        config.templates_max = 16;
        config.fragments_max = 8;
        config.fragment_bytes_max = 8192;
        config.events_max = 16;
    });
    for (name, config) in [("default", &default), ("small", &small)] {
        let bytes = config.reserved_bytes() as usize;
        let taken = with_memory(bytes + SPARE, config).expect("there is enough");
        println!("{name}: {bytes} bytes reserved, {taken} in all, {} more in the director", size_of::<Director>());
        assert!((bytes..bytes + SPARE).contains(&taken), "{taken} bytes, {bytes} of them known before");
        // Whichever table it is that finds no room.
        for part in 0..64 {
            let left = SPARE + bytes.saturating_sub(SPARE) * part / 64;
            if left < bytes {
                assert_eq!(with_memory(left, config), Err(OutOfMemory { bytes: bytes as u64 }), "{name}, {left} bytes");
            }
        }
        with_memory(bytes + SPARE, config).expect("a failure leaves nothing behind");
    }
    // More than there is anywhere.
    let endless = default.clone().with(|config| config.connections_max = u32::MAX);
    assert!(with_memory(1 << 40, &endless).is_err());
    for (connections, half) in [(65_536u32, 32_768), (1 << 20, 1 << 19)] {
        let config = |connections_max| default.clone().with(|config| config.connections_max = connections_max);
        let bytes = |connections_max| config(connections_max).reserved_bytes();
        println!("{} bytes a connection", (bytes(connections) - bytes(half)) / u64::from(connections - half));
    }
}
