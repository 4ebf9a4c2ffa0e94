//! `lvsd`: the LVS in Rust daemon. Reads the command line and hands over to the library beside it.

use std::process::ExitCode;

use lvs_director::args::{self, Invocation};
use lvs_director::{demo, print, realserver, run};

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    match args::parse(words) {
        Ok(Invocation::Help) => print(&format!("{}\n\n{}\n", args::USAGE, args::HELP)),
        Ok(Invocation::Version) => print(concat!("lvsd ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Invocation::Demo { requests, json }) => return demo::run(requests, json),
        Ok(Invocation::Run { rules, devices, workers }) => return run::run(&rules, &devices, workers),
        Ok(Invocation::RealServer { action, vips, tunnel, memory }) => {
            let memory = memory.unwrap_or_else(realserver::default_path);
            return realserver::realserver(action, &vips, tunnel.as_ref(), &memory);
        }
        Err(complaint) => {
            eprintln!("lvsd: {complaint}\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
