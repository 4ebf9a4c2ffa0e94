//! Command lines over ipvsadm's grammar: mostly right, some wrong. Few different services and servers, so that commands
//! meet what others left behind.

use proptest::prelude::*;
use proptest::sample::select;

/// A command line, without the program's name.
pub fn command_line() -> impl Strategy<Value = Vec<String>> {
    let line = prop_oneof![
        4 => (select(&["-A", "-E", "--add-service", "--edit-service"][..]), service(), service_options()).prop_map(join),
        5 => (select(&["-a", "-e", "--add-server", "--edit-server"][..]), service(), server_options()).prop_map(join),
        1 => (select(&["-d", "--delete-server"][..]), service(), server()).prop_map(join),
        1 => (select(&["-D", "-Z", "-L", "-Ln"][..]), service(), Just(String::new())).prop_map(join),
        3 => (select(&["-L", "-Ln", "-l", "--list", "-S", "-Sn"][..]), list_options(), Just(String::new())).prop_map(join),
        1 => select(&["-C", "-Z", "", "--set 100 20 30", "--set 0 0 0", "--set 1 2", "--set a b c", "-Ln --daemon",
            "--start-daemon master --mcast-interface nosuch", "--stop-daemon backup", "--start-daemon nobody",
            "-X", "--nosuch", "-A", "-n", "-A -A", "extra", "-D -C"][..]).prop_map(str::to_owned),
    ];
    // Now and then a word is lost, doubled or spoiled.
    (line, prop::option::weighted(0.15, (any::<prop::sample::Index>(), 0..3_u8))).prop_map(|(line, change)| {
        let mut words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        if let (Some((index, kind)), false) = (change, words.is_empty()) {
            let index = index.index(words.len());
            match kind {
                0 => drop(words.remove(index)),
                1 => words.insert(index, words[index].clone()),
                _ => words[index].push('x'),
            }
        }
        words
    })
}

fn join((command, one, other): (&str, String, String)) -> String {
    format!("{command} {one} {other}")
}

fn service() -> impl Strategy<Value = String> {
    select(
        &[
            "-t 192.0.2.80:80",
            "-t 192.0.2.80:443",
            "-u 192.0.2.80:53",
            "--sctp-service 192.0.2.80:5060",
            "-t [2001:db8::80]:80",
            "-f 5",
            "-f 5 -6",
            "-t 192.0.2.80:0",
            "-t 192.0.2.80",
            "-t [2001:db8::80]",
            "-f 0",
        ][..],
    )
    .prop_map(str::to_owned)
}

fn service_options() -> impl Strategy<Value = String> {
    let scheduler = select(&["", "-s rr", "-s wlc", "-s sh", "-s mh", "-s nosuch", "--scheduler lblcr"][..]);
    let persistence =
        select(&["", "", "-p", "-p 300", "-p 300 -M 255.255.255.0", "-M 64", "-p 0", "-p 300 --pe sip", "-p abc"][..]);
    let more = select(&["", "", "-o", "-b sh-port", "-b sh-port,sh-fallback", "-b mh-port", "-b flag-1", "-w 3"][..]);
    (scheduler, persistence, more)
        .prop_map(|(scheduler, persistence, more)| format!("{scheduler} {persistence} {more}"))
}

fn server() -> impl Strategy<Value = String> {
    select(
        &[
            "-r 10.0.0.2:8080",
            "-r 10.0.0.3",
            "-r 10.0.0.4:80",
            "-r [fd00::2]:8080",
            "-r [fd00::3]",
            "-r 224.0.0.1:80",
            "-r 10.0.0.2:http",
            "-r 10.0.0",
        ][..],
    )
    .prop_map(str::to_owned)
}

fn server_options() -> impl Strategy<Value = String> {
    let method = select(
        &[
            "",
            "-m",
            "-m",
            "-g",
            "-i",
            "-i --tun-type gue --tun-port 6080",
            "-i --tun-type gre --tun-csum",
            "-i --tun-type gue",
            "-m -g",
            "-i --tun-type gue --tun-port 6080 --tun-remcsum",
            "-m --tun-type ipip",
        ][..],
    );
    let weight = select(&["", "-w 3", "-w 0", "-w 65535", "-w -1", "-w abc", "--weight 7"][..]);
    let thresholds = select(&["", "", "-x 10", "-x 10 -y 5", "-y 5", "-x 5 -y 10", "-x abc"][..]);
    (server(), method, weight, thresholds)
        .prop_map(|(server, method, weight, thresholds)| format!("{server} {method} {weight} {thresholds}"))
}

fn list_options() -> impl Strategy<Value = String> {
    let what = select(
        &[
            "",
            "",
            "--stats",
            "--rate",
            "--thresholds",
            "--persistent-conn",
            "--tun-info",
            "--timeout",
            "-c",
            "--daemon",
        ][..],
    );
    let how = select(&["", "-n", "--exact", "--nosort", "--sort", "-n --exact", "--tun-info"][..]);
    (what, how).prop_map(|(what, how)| format!("{what} {how}"))
}
