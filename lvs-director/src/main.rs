//! `lvsd`: the LVS in Rust daemon. Reads the command line and hands over to the library beside it.

use std::process::ExitCode;

use lvs_director::args::{self, Invocation};
use lvs_director::configuration::check;
use lvs_director::log::Format;
use lvs_director::{demo, host_rules, log, pages, realserver, run, say};

fn main() -> ExitCode {
    let status = run();
    log::end();
    status
}

fn run() -> ExitCode {
    let invocation = args::parse(std::env::args_os().skip(1));
    // `run` begins it by itself: its configuration says how.
    if !matches!(invocation, Ok(Invocation::Run(_))) {
        log::begin(Format::Human);
    }
    match invocation {
        Ok(Invocation::Demo(options)) => match options.page {
            Some(at) => demo::page::run(at),
            None => demo::run(options.requests, options.json),
        },
        Ok(Invocation::Run(options)) => run::run(&options),
        Ok(Invocation::Check(options)) => check::check(&options.file),
        Ok(Invocation::Clean) => host_rules::clean(),
        Ok(Invocation::RealServer(options)) => {
            let (action, vips, tunnel) = options.action.parts();
            let memory = options.memory.clone().unwrap_or_else(realserver::default_path);
            realserver::realserver(action, vips, tunnel.as_ref(), &memory)
        }
        Ok(Invocation::Man { subcommand }) => match pages::manual(subcommand.as_deref()) {
            Ok(page) => say::print(&page),
            Err(complaint) => {
                say::error(complaint);
                ExitCode::from(USAGE)
            }
        },
        Ok(Invocation::Completions { shell }) => say::print(&pages::completions(shell)),
        Err(answer) if answer.use_stderr() => {
            let text = answer.render().to_string();
            say::error(text.trim_start_matches("error: ").trim_end());
            ExitCode::from(USAGE)
        }
        Err(help) => say::print(&help.render().to_string()),
    }
}

/// The exit status of a wrong command line.
const USAGE: u8 = 2;
