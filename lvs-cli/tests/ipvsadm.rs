//! ipvsadm's command lines against a director behind a control socket: what they print, how they end.

use lvs_admin::Names;
use lvs_cli::ipvsadm::{self, Surroundings};
use lvs_cli::said::Said;
use lvs_client::Running;
use lvs_testkit::served::Served;

fn run(served: &Served, line: &str, stdin: &str) -> Said {
    let words = lvs_admin::split_words(line);
    let mut surroundings =
        Surroundings { names: &Names::none(), stdin: &mut stdin.as_bytes(), json: false, thresholds: false };
    ipvsadm::run(&words, || Running::connect(&served.path()), &mut surroundings)
}

/// Runs the lines in turn and holds what each says against what is expected.
fn check(lines: &[(&str, &str, &str, u8)]) {
    let served = Served::start(Default::default());
    for (line, stdout, stderr, status) in lines {
        let expected = Said { stdout: (*stdout).into(), stderr: (*stderr).into(), status: *status };
        assert_eq!(run(&served, line, ""), expected, "{line}");
    }
}

#[test]
fn services_and_servers_are_added_listed_saved_and_deleted() {
    check(&[
        ("-A -t 192.0.2.80:80 -s wrr", "", "", 0),
        ("-a -t 192.0.2.80:80 -r 10.0.0.2:8080 -m -w 3", "", "", 0),
        ("-a -t 192.0.2.80:80 -r 10.0.0.3:8080 -m", "", "", 0),
        (
            "-Ln",
            "IP Virtual Server version 1.2.1 (size=4096)\n\
             Prot LocalAddress:Port Scheduler Flags\n  \
               -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
             TCP  192.0.2.80:80 wrr\n  \
               -> 10.0.0.2:8080                Masq    3      0          0         \n  \
               -> 10.0.0.3:8080                Masq    1      0          0         \n",
            "",
            0,
        ),
        (
            "-Sn",
            "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:8080 -m -w 3\n\
             -a -t 192.0.2.80:80 -r 10.0.0.3:8080 -m -w 1\n",
            "",
            0,
        ),
        ("-C", "", "", 0),
        ("-Sn", "", "", 0),
    ]);
}

#[test]
fn what_is_refused_is_told_in_ipvsadms_words() {
    check(&[
        ("-D -t 192.0.2.80:80", "", "No such service\n", 255),
        ("-a -t 192.0.2.80:80 -r 10.0.0.2:80 -m", "", "Service not defined\n", 255),
        ("-A -t 192.0.2.80:80 -s nosuch", "", "Scheduler or persistence engine not found\n", 255),
        ("-A -t 192.0.2.80:80 -s rr", "", "", 0),
        ("-A -t 192.0.2.80:80 -s rr", "", "Service already exists\n", 255),
        ("-d -t 192.0.2.80:80 -r 10.0.0.2:80", "", "No such destination\n", 255),
        ("-Ln -t 192.0.2.81:80", "", "No such service\n", 1),
        ("-A -t 192.0.2.80:80 -w 1", "", "Illegal 'weight' option with the 'add-service' command\n", 2),
        ("--stop-daemon master", "", "No daemon is running\n", 255),
        ("--start-daemon master --mcast-interface nosuch", "", "No such device\n", 255),
    ]);
}

#[test]
fn restoring_goes_on_after_a_refusal_and_stops_at_a_line_that_is_no_rule() {
    let served = Served::start(Default::default());
    let rules = "-A -t 192.0.2.80:80 -s rr\n-A -t 192.0.2.80:80 -s rr\n-A -u 192.0.2.80:53 -s rr\nnonsense\n-C\n";
    let said = run(&served, "-R", rules);
    assert_eq!(said.status, 255);
    assert!(said.stderr.starts_with("Service already exists\n"), "{said:?}");
    assert_eq!(run(&served, "-Sn", "").stdout, "-A -t 192.0.2.80:80 -s rr\n-A -u 192.0.2.80:53 -s rr\n");
}

#[test]
fn ten_thousand_lines_are_restored_and_saved_as_they_were() {
    let served = Served::start(Default::default());
    let mut rules = String::new();
    for service in 0..100 {
        rules.push_str(&format!("-A -t 192.0.2.80:{} -s rr\n", service + 1000));
        for server in 0..99 {
            rules.push_str(&format!("-a -t 192.0.2.80:{} -r 10.0.0.{}:80 -m -w 1\n", service + 1000, server + 1));
        }
    }
    assert_eq!(run(&served, "-R", &rules), Said::default());
    assert_eq!(run(&served, "-Sn", "").stdout, rules);
}

#[test]
fn without_a_director_only_help_and_version_are_answered() {
    let mut surroundings = Surroundings { names: &Names::none(), stdin: &mut &b""[..], json: false, thresholds: false };
    let nobody = || Running::connect("/nonexistent/control.sock".as_ref());
    assert_eq!(ipvsadm::run(&["-h"], nobody, &mut surroundings).status, 0);
    let said = ipvsadm::run(&["-Ln"], nobody, &mut surroundings);
    assert_eq!(said.status, 2);
    assert!(said.stderr.contains("no lvsd listens at /nonexistent/control.sock"), "{}", said.stderr);
}
