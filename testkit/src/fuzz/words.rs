//! Command lines and rules of anybody: they are understood or refused in words, what they ask for can be written down
//! and read again, and what was saved restores what was saved.

use lvs_admin::{
    ListOptions, Listing, Names, Request, SaveOptions, UsageError, command_line, list, list_connections, parse,
    parse_rules, parse_with_names, restore, save, split_words,
};
use lvs_core::{Command, Director, Instant, Seed};

use super::config;

/// Arguments, each ended by a zero byte, as a process has them. What is no UTF-8 stands for itself replaced.
pub fn arguments(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<_> = text.strip_suffix('\0').unwrap_or(&text).split('\0').collect();
    let names = names();
    let request = match parse_with_names(&words, &names) {
        Ok(request) => request,
        Err(error) => return is_told(&error),
    };
    match request {
        Request::Apply(command) => carry_out(&words, &command),
        Request::List(options) => listings(&options, &names),
        Request::Save { .. } | Request::Restore | Request::StartDaemon(_) | Request::StopDaemon(_) => {}
        Request::Help | Request::Version => {}
    }
}

/// A text of rules, taken line by line as `ipvsadm -R` does.
pub fn rules(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut by_line, mut count) = (director(), 0);
    for request in restore(&text, &names()) {
        match request {
            Ok(Request::Apply(command)) => apply(&mut by_line, &command),
            Ok(request) => assert!(request.why_no_rule().is_some(), "{request:?}"),
            Err(error) => {
                assert!((1..=text.lines().count()).contains(&error.line), "{error}");
                is_told(&error.error);
                break;
            }
        }
        count += 1;
        assert!(count <= text.lines().count(), "no line twice");
    }
    restores_itself(&by_line);
    // At once, and all or nothing.
    if let Ok(commands) = parse_rules(&text) {
        commands.iter().for_each(|command| apply(&mut director(), command));
    }
}

/// What there is before anybody says a word.
const SERVED: &str = "
-A -t 192.0.2.1:80 -s rr -p 300
-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w 1
-a -t 192.0.2.1:80 -r 10.0.0.2:80 -g
-A -t 192.0.2.2:53 -s rr
--add-laddr -t 192.0.2.2:53 --local-address 10.0.0.200
-a -t 192.0.2.2:53 -r 10.0.0.1:80 --fullnat
-A -u 192.0.2.3:53 -s sh -o
-a -u 192.0.2.3:53 -r 10.0.0.2 -i --tun-type gue --tun-port 6080
-A --sctp-service [2001:db8::1]:80 -s wlc
-a --sctp-service [2001:db8::1]:80 -r [fd00::1]:8080 -m
-A -f 5 -6 -s mh
-a -f 5 -6 -r fd00::1 -g
";

fn bare() -> Director {
    Director::new(config(), Seed::new(7))
}

fn director() -> Director {
    let mut director = bare();
    for command in parse_rules(SERVED).expect("the rules are right") {
        director.apply(Instant::ZERO, &command).expect("a valid command");
    }
    director
}

fn names() -> Names {
    Names::from_files("http 80/tcp www\ndomain 53/udp\n", "192.0.2.1 web web.example\n2001:db8::1 six\n")
}

/// A complaint says something, and its exit status is one of ipvsadm's.
fn is_told(error: &UsageError) {
    assert!(!error.message.is_empty() && [1, 2, 255].contains(&error.exit_status), "{error:?}");
}

fn carry_out(words: &[&str], command: &Command) {
    let mut once = director();
    apply(&mut once, command);
    restores_itself(&once);
    // A name with blanks in it, or an empty one, cannot be written as words.
    if words.iter().any(|word| split_words(word) != [*word]) {
        return;
    }
    let Some(line) = command_line(command) else { return };
    let again = match parse(&split_words(&line)) {
        Ok(Request::Apply(command)) => command,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(command_line(&again).as_ref(), Some(&line), "{command:?}");
    let mut twice = director();
    apply(&mut twice, &again);
    assert_eq!(saved(&twice), saved(&once), "{command:?}\n{line}");
}

/// Every way of listing something, of a director that has something.
fn listings(options: &ListOptions, names: &Names) {
    let director = director();
    let services = director.services(Instant::ZERO);
    match options.listing {
        Listing::Services(_) => {
            let is_there = options.service.is_none_or(|key| services.iter().any(|service| service.key == key));
            assert_eq!(list(&services, options, names).is_ok(), is_there, "{options:?}");
        }
        _ => drop(list_connections(&[], options, names)),
    }
}

/// Carries a command out; a refused one changes nothing.
fn apply(director: &mut Director, command: &Command) {
    let before = director.services(Instant::ZERO);
    if director.apply(Instant::ZERO, command).is_err() {
        assert_eq!(director.services(Instant::ZERO), before, "a refused command changes nothing: {command:?}");
    }
}

fn saved(director: &Director) -> String {
    let options = SaveOptions { numeric: true, thresholds: true };
    save(&director.services(Instant::ZERO), options, &Names::none())
}

/// What was saved, restored into a director without services, is saved as the same.
fn restores_itself(director: &Director) {
    let text = saved(director);
    let commands = parse_rules(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let mut other = bare();
    for command in &commands {
        other.apply(Instant::ZERO, command).unwrap_or_else(|error| panic!("{command:?}: {error}\n{text}"));
    }
    assert_eq!(saved(&other), text);
}
