//! What clap's description of the command line is good for besides reading it: manual pages, and completion in shells.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::CommandLine;

/// The manual page lvsd(8), or that of a subcommand: `run` gives lvsd-run(8).
///
/// # Errors
/// There is no such subcommand.
pub fn manual(subcommand: Option<&str>) -> Result<String, String> {
    let mut command = CommandLine::command();
    command.build();
    if let Some(name) = subcommand {
        command = command.find_subcommand(name).ok_or(format!("there is no subcommand {name}"))?.clone();
    }
    let mut page = Vec::new();
    let page_of = clap_mangen::Man::new(command).section(SECTION);
    page_of.render(&mut page).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// A script that lets `shell` complete lvsd's words.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "lvsd", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Commands for administrators (man(1)).
const SECTION: &str = "8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_manual_page_with_its_options() {
        assert!(manual(None).expect("lvsd").contains("lvsd\\-run(8)"));
        for subcommand in CommandLine::command().get_subcommands() {
            let page = manual(Some(subcommand.get_name())).expect("it is one");
            let title = format!(".TH lvsd-{} 8", subcommand.get_name());
            assert!(page.lines().any(|line| line.starts_with(&title)), "{title} is missing in\n{page}");
        }
        assert!(manual(Some("run")).expect("it is one").contains("\\-\\-on\\-device\\-loss"));
        assert_eq!(manual(Some("nosuch")), Err("there is no subcommand nosuch".to_owned()));
    }

    #[test]
    fn shells_complete_subcommands_and_options() {
        let script = completions(Shell::Bash);
        assert!(script.contains("realserver") && script.contains("--on-device-loss"), "{script}");
    }
}
