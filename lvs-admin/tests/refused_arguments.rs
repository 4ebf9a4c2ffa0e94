//! Command lines that ipvsadm 1.31 refuses by itself: sentence and exit status.

use lvs_admin::{parse, split_words};
use proptest::prelude::*;

/// Each line of arguments is refused with this exit status and these words on standard error.
fn check(refusals: &[(&str, u8, &str)]) {
    for &(arguments, exit_status, message) in refusals {
        let error = match parse(&split_words(arguments)) {
            Err(error) => error,
            Ok(request) => panic!("{arguments} is accepted as {request:?}"),
        };
        assert_eq!((error.exit_status, error.message.as_str()), (exit_status, message), "{arguments}");
    }
}

#[test]
fn recorded_refusals_have_their_words_and_exit_status() {
    check(&RECORDED);
}

#[test]
fn options_of_our_own_are_refused_in_the_same_words() {
    check(&[
        ("--add-laddr -t 1.2.3.4:80", 2, "You need to supply the 'local-address' option for the 'add-laddr' command"),
        (
            "--del-laddr --local-address 10.0.0.1",
            2,
            "You need to supply the 'service-address' option for the 'del-laddr' command",
        ),
        ("--add-laddr -t 1.2.3.4:80 --local-address 10.0.0", 2, "illegal local address specified"),
        (
            "-A -t 1.2.3.4:80 --local-address 10.0.0.1",
            2,
            "Illegal 'local-address' option with the 'add-service' command",
        ),
        ("-A -t 1.2.3.4:80 --client-address dns", 2, "illegal client address specified"),
        ("-a -t 1.2.3.4:80 -r 10.0.0.1 --fullnat -m", 2, "multiple 'forwarding-method' options specified"),
        (
            "-a -t 1.2.3.4:80 -r 10.0.0.1 --keep-sequence",
            2,
            "Illegal 'keep-sequence' option with the 'add-server' command",
        ),
        ("-A -t 1.2.3.4:80 --mss-clamp", 255, "--mss-clamp: missing argument"),
        ("-A -t 1.2.3.4:80 --mss-clamp 0", 2, "illegal mss-clamp specified"),
        ("-A -t 1.2.3.4:80 --mss-clamp 65536", 2, "illegal mss-clamp specified"),
        ("-A -t 1.2.3.4:80 --mss-clamp 1400 --mss-clamp 1400", 2, "multiple 'mss-clamp' options specified"),
        (
            "-a -t 1.2.3.4:80 -r 10.0.0.1 --mss-clamp 1400",
            2,
            "Illegal 'mss-clamp' option with the 'add-server' command",
        ),
        ("-E -t 1.2.3.4:80 --helper", 255, "--helper: missing argument"),
        ("-D -t 1.2.3.4:80 --helper ftp", 2, "Illegal 'helper' option with the 'delete-service' command"),
        ("-A -t 1.2.3.4:80 --tcp-timeout 0", 2, "invalid timeout value `0' specified"),
        ("-A -t 1.2.3.4:80 --tcpfin-timeout 1.x", 2, "invalid timeout value `1.x' specified"),
        ("-A -t 1.2.3.4:80 --udp-timeout 0.0000000001", 2, "invalid timeout value `0.0000000001' specified"),
        ("-A -t 1.2.3.4:80 --slow-start 0", 2, "illegal slow-start specified"),
        ("-A -t 1.2.3.4:80 --slow-start 60,", 2, "illegal slow-start specified"),
        ("-A -t 1.2.3.4:80 --slow-start 60,1025", 2, "illegal slow-start specified"),
        ("-A -t 1.2.3.4:80 --slow-start 60,102,65536", 2, "illegal slow-start specified"),
        ("-A -t 1.2.3.4:80 --slow-start 60,102,1024,1", 2, "illegal slow-start specified"),
        ("-A -t 1.2.3.4:80 --on-server-gone explode", 2, "illegal on-server-gone specified"),
        ("-A -t 1.2.3.4:80 --on-reply-conflict fight", 2, "illegal on-reply-conflict specified"),
        ("-A -t 1.2.3.4:80 --reuse-reschedules=1", 255, "--reuse-reschedules=1: option does not take an argument"),
        ("-A -t 1.2.3.4:80 --mtu 1400", 2, "Illegal 'mtu' option with the 'add-service' command"),
        ("-a -t 1.2.3.4:80 -r 10.0.0.1 --mtu 0", 2, "illegal mtu specified"),
        ("-a -t 1.2.3.4:80 -r 10.0.0.1 --drain soon", 2, "illegal drain specified"),
        (
            "-e -t 1.2.3.4:80 -r 10.0.0.1 --drain-reset",
            2,
            "You need to supply the 'drain' option for the 'drain-reset' option",
        ),
        ("-d -t 1.2.3.4:80 -r 10.0.0.1 --drain 5", 2, "Illegal 'drain' option with the 'delete-server' command"),
        ("-A -t 1.2.3.4:80 --drain 5", 2, "Illegal 'drain' option with the 'add-service' command"),
    ]);
}

/// Seen by running ipvsadm 1.31 itself, with its kernel calls answered by a stand-in.
#[test]
fn the_first_of_several_mistakes_is_the_one_ipvsadm_names() {
    check(&[
        ("-A -z -D", 255, "-z: unknown option"),
        ("-A -t foo -z", 2, "illegal virtual server address[:port] specified"),
        ("-A -t 1.2.3.4:80 -b nosuch -z", 255, "-z: unknown option"),
        ("-A -t 1.2.3.4:80 -b nosuch -w 3", 2, "invalid scheduler flag `nosuch'"),
        ("-A -t 1.2.3.4:80 -b sh-port", 2, "incompatible scheduler flag `sh-port'"),
        ("-A -t 1.2.3.4:0 -w 1", 2, "Illegal 'weight' option with the 'add-service' command"),
        ("-A -t 1.2.3.4:0 -o", 2, "Zero port specified for non-persistent service"),
        ("-A -w 1 foo", 2, "unexpected argument foo"),
        ("--set a b c 4", 2, "invalid timeout value `a' specified"),
        ("--set 1 2 -t 1.2.3.4:80", 2, "--set option requires 3 timeout values"),
        ("-C --nosort --exact", 2, "Illegal 'nosort' option with the 'flush' command"),
        (
            "-L -c --stats --timeout",
            2,
            "The option 'timeout' conflicts with the 'connection' option in the 'list' command",
        ),
        (
            "-L -c --timeout --mcast-ttl 4",
            2,
            "The option 'timeout' conflicts with the 'connection' option in the 'list' command",
        ),
        ("-L --timeout --stats -o", 2, "Illegal 'ops' option with the 'list' command"),
        (
            "-a -t 1.2.3.4:80 -r [::1]:80 -m --tun-type gre",
            2,
            "Different address family is allowed only for tunneling servers",
        ),
        (
            "-a -t 1.2.3.4:80 -r 1.1.1.1 -i --tun-type gre --tun-csum --tun-nocsum --tun-remcsum",
            2,
            "The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gre' tunnel type",
        ),
        ("-a -w 1 -w abc", 2, "multiple 'weight' options specified"),
        ("--start-daemon foo -z", 2, "illegal start-daemon parameter specified"),
    ]);
}

/// Seen by running ipvsadm 1.31 itself, with its kernel calls answered by a stand-in.
#[test]
fn options_are_told_apart_as_popt_does() {
    check(&[
        ("--add-service --tcp 1.2.3.4:80", 255, "--tcp: unknown option"),
        ("-A -tcp-service 1.2.3.4:80", 2, "illegal virtual server address[:port] specified"),
        ("-CZ", 2, "invalid option `-CZ'"),
        ("-LnQ", 255, "-LnQ: unknown option"),
        ("-Lw", 255, "-Lw: missing argument"),
        ("-Ln=", 255, "-Ln=: option does not take an argument"),
        ("-A --exact=5", 255, "--exact=5: option does not take an argument"),
        ("--start-daemon master --stop-daemon master", 2, "invalid option `master'"),
        ("-A -- -t", 2, "unexpected argument -t"),
        ("-nA", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("-- -A", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("-A -u 1.2.3.4:80 -po", 2, "invalid timeout value `o' specified"),
        ("-A -u 1.2.3.4:80 -p-5", 2, "invalid timeout value `-5' specified"),
    ]);
}

proptest! {
    #[test]
    fn no_argument_list_makes_it_panic(arguments in prop::collection::vec(argument(), 0..8)) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let _ = parse(&arguments);
    }
}

/// Words that get far into the grammar, and any others.
fn argument() -> impl Strategy<Value = String> {
    let known = vec![
        "-A",
        "-a",
        "-e",
        "-d",
        "-L",
        "-Lcn",
        "--set",
        "--start-daemon",
        "master",
        "-t",
        "-u",
        "-f",
        "-6",
        "-r",
        "-p",
        "-M",
        "-b",
        "-w",
        "-x",
        "-i",
        "--tun-type",
        "gue",
        "--tun-port",
        "1.2.3.4:80",
        "[::1]:80",
        "[",
        "]:",
        "::",
        "0x",
        "0",
        "-",
        "--",
        "=",
        "é",
        "-é",
        "--é=",
        "99999999999999999999",
        ",",
        "--mcast-group",
        "--mcast-interface",
        "--mss-clamp",
        "--slow-start",
        "1,",
        "--udp-timeout",
        "1.",
    ];
    prop_oneof![3 => prop::sample::select(known).prop_map(str::to_owned), 1 => any::<String>(), 1 => "-[a-zA-Z6]{1,4}.{0,6}"]
}

/// Arguments, exit status, standard error: from the recordings named.
#[rustfmt::skip]
const RECORDED: [(&str, u8, &str); 107] = [
    // ctl_errors_args
    ("-A", 2, "You need to supply the 'service-address' option for the 'add-service' command"),
    ("-A -s rr", 2, "You need to supply the 'service-address' option for the 'add-service' command"),
    ("-A -t", 255, "-t: missing argument"),
    ("-A -t 10.0.0", 2, "Zero port specified for non-persistent service"),
    ("-A -t 10.0.0.1", 2, "Zero port specified for non-persistent service"),
    ("-A -t 10.0.0.1:", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.0.0.1:99999", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.0.0.1:-1", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.0.0.1:abc", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 300.0.0.1:80", 2, "illegal virtual server address[:port] specified"),
    ("-A -t 10.66.46.82:9000 -r 10.1.242.146:8000", 2, "Illegal 'real-server' option with the 'add-service' command"),
    ("-A -t 10.66.46.82:9000 -w 1", 2, "Illegal 'weight' option with the 'add-service' command"),
    ("-A -t 10.66.46.82:9000 -m", 2, "Illegal 'forwarding-method' option with the 'add-service' command"),
    ("-A -t 10.66.46.82:9000 -t 10.66.46.82:9000", 2, "multiple 'service-address' options specified"),
    ("-A -t 10.66.46.82:9000 -u 10.66.46.82:9000", 2, "multiple 'service-address' options specified"),
    ("-A -D -t 10.66.46.82:9000", 2, "invalid option `-D'"),
    ("-A -t 10.66.46.82:9000 -s", 255, "-s: missing argument"),
    ("-A -t 10.66.46.82:9000 -s rr -s rr", 2, "multiple 'scheduler' options specified"),
    ("-A -t 10.66.46.82:9000 -p abc", 2, "invalid timeout value `abc' specified"),
    ("-A -t 10.66.46.82:9000 -p -5", 255, "-5: unknown option"),
    ("-A -t 10.66.46.82:9000 -p 99999999999", 2, "invalid timeout value `99999999999' specified"),
    ("-A -t 10.66.46.82:9000 -p 5 -M foo", 2, "illegal virtual server persistent mask specified"),
    ("-A -f abc", 2, "invalid fwmark value `abc' specified"),
    ("-A -f -1", 2, "invalid fwmark value `-1' specified"),
    ("-A -f 99999999999", 2, "invalid fwmark value `99999999999' specified"),
    ("-a", 2, "You need to supply the 'service-address' option for the 'add-server' command"),
    ("-a -t 10.66.46.82:9000", 2, "You need to supply the 'real-server' option for the 'add-server' command"),
    ("-a -r 10.1.242.146:8000", 2, "You need to supply the 'service-address' option for the 'add-server' command"),
    ("-a -t 10.66.46.82:9000 -r", 255, "-r: missing argument"),
    ("-a -t 10.66.46.82:9000 -r foo:80", 2, "illegal real server address[:port] specified"),
    ("-a -t 10.66.46.82:9000 -r 10.1.242.146:8000 -m -g", 2, "multiple 'forwarding-method' options specified"),
    ("-a -t 10.66.46.82:9000 -r 10.1.242.146:8000 -s rr", 2, "Illegal 'scheduler' option with the 'add-server' command"),
    ("-a -t 10.66.46.82:9000 -r 10.1.242.146:8000 -p", 2, "Illegal 'persistent' option with the 'add-server' command"),
    ("-a -t 10.66.46.82:9000 -r 10.1.242.146:8000 -x -1", 2, "illegal u_threshold specified"),
    ("-a -t 10.66.46.82:9000 -r 10.1.242.146:8000 -y abc", 2, "illegal l_threshold specified"),
    ("-a -t 10.66.46.82:9000 -r 10.1.242.146:8000 -z", 255, "-z: unknown option"),
    ("-D", 2, "You need to supply the 'service-address' option for the 'delete-service' command"),
    ("-E", 2, "You need to supply the 'service-address' option for the 'edit-service' command"),
    ("-E -t 10.66.46.82:9000 -r 10.1.242.146:8000", 2, "Illegal 'real-server' option with the 'edit-service' command"),
    ("-d -t 10.66.46.82:9000", 2, "You need to supply the 'real-server' option for the 'delete-server' command"),
    ("-d -t 10.66.46.82:9000 -r 10.1.242.146:8000 -w 2", 2, "Illegal 'weight' option with the 'delete-server' command"),
    ("-e -t 10.66.46.82:9000", 2, "You need to supply the 'real-server' option for the 'edit-server' command"),
    ("-C -t 10.66.46.82:9000", 2, "Illegal 'service-address' option with the 'flush' command"),
    ("-C foo", 2, "unexpected argument foo"),
    ("-R foo", 2, "unexpected argument foo"),
    ("-S -t 10.66.46.82:9000", 2, "Illegal 'service-address' option with the 'save' command"),
    ("-S -x", 255, "-x: missing argument"),
    ("-Z foo", 2, "unexpected argument foo"),
    ("-L foo", 2, "unexpected argument foo"),
    ("-Ln foo", 2, "unexpected argument foo"),
    ("-L -s rr", 2, "Illegal 'scheduler' option with the 'list' command"),
    ("-L -w 1", 2, "Illegal 'weight' option with the 'list' command"),
    ("-L -t 10.66.46.82:9000 -c", 2, "The option 'service-address' conflicts with the 'connection' option in the 'list' command"),
    ("-Lc --stats", 2, "options conflicts in the list command"),
    ("-Lcn --rate", 2, "options conflicts in the list command"),
    ("-L --daemon --timeout", 2, "The option 'daemon' conflicts with the 'timeout' option in the 'list' command"),
    ("-n", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("foo", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--nosuch", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("-Q", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--set", 2, "--set option requires 3 timeout values"),
    ("--set 1", 2, "--set option requires 3 timeout values"),
    ("--set 1 2", 2, "--set option requires 3 timeout values"),
    ("--set 1 2 3 4", 2, "unexpected argument 4"),
    ("--set a b c", 2, "invalid timeout value `a' specified"),
    ("--set -1 2 3", 255, "-1: unknown option"),
    ("--set 99999999 2 3", 2, "invalid timeout value `99999999' specified"),
    ("--start-daemon", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--start-daemon foo", 2, "illegal start-daemon parameter specified"),
    ("--start-daemon master --syncid 256", 2, "illegal syncid specified"),
    ("--start-daemon master --syncid abc", 2, "illegal syncid specified"),
    ("--start-daemon master --syncid -1", 2, "illegal syncid specified"),
    ("--stop-daemon", 255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ("--stop-daemon foo", 2, "illegal start_daemon specified"),
    ("-A -t 10.66.46.82:9000 -s rr --mcast-interface r0", 2, "Illegal 'mcast-interface' option with the 'add-service' command"),
    ("--start-daemon master -t 10.66.46.82:9000", 2, "Illegal 'service-address' option with the 'start-daemon' command"),
    ("--start-daemon backup --sync-maxlen abc", 2, "illegal sync-maxlen specified"),
    ("--start-daemon master --mcast-interface r0 --mcast-port 0", 2, "illegal mcast-port specified"),
    ("--start-daemon master --mcast-interface r0 --mcast-group 1.2.3.4", 2, "invalid IPv4 mcast-group `1.2.3.4'"),
    ("--start-daemon master --mcast-interface r0 --mcast-ttl 0", 2, "illegal mcast-ttl specified"),
    ("--start-daemon master --mcast-interface r0 --mcast-ttl 256", 2, "illegal mcast-ttl specified"),
    ("-A -t [::1:80 -s rr", 2, "illegal virtual server address[:port] specified"),
    ("-A -t [::1] -s rr", 2, "illegal virtual server address[:port] specified"),
    ("-A -t ::1 -s rr", 2, "Zero port specified for non-persistent service"),
    ("-A -t [fd00::1]:80 -s rr -p 5 -M 129", 2, "illegal ipv6 netmask specified"),
    ("-A -t 10.66.46.82:9000 -6", 2, "-6 used before -f\n"),
    ("-a -t 10.66.46.82:9000 -r [fd01::9]:80 -m", 2, "Different address family is allowed only for tunneling servers"),
    ("-a -t 10.66.46.82:9000 -r [fd01::9] -i", 2, "illegal real server address[:port] specified"),
    // ctl_errors_kernel
    ("-a -t 10.221.222.146:443 -r 10.1.128.129:8443 -m -w -1", 2, "illegal weight specified"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.129:8443 -m -w 2147483648", 2, "illegal weight specified"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.129:8443 -m -w abc", 2, "illegal weight specified"),
    ("-E -t 10.221.222.146:443 -s rr -p 0", 2, "invalid timeout value `0' specified"),
    ("-A -f 0 -s rr", 2, "invalid fwmark value `0' specified"),
    ("-A -t 10.221.222.146:0 -s rr", 2, "Zero port specified for non-persistent service"),
    ("-A -t 10.221.222.146:444 -s sh -b nosuchflag", 2, "invalid scheduler flag `nosuchflag'"),
    ("-A -t 10.221.222.146:444 -s rr -o", 2, "One-Packet Scheduling is only for UDP virtual services"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.85:8443 -i --tun-type nosuch", 2, "illegal tunnel type specified"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.85:8443 -i --tun-type gue", 2, "You need to supply the 'tun-port' option for the 'gue' tunnel type"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.85:8443 -i --tun-type gue --tun-port 0", 2, "illegal tunnel port specified"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.85:8443 -i --tun-type ipip --tun-port 10", 2, "Illegal 'tun-port' option with the 'ipip' tunnel type"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.85:8443 -m --tun-type gue --tun-port 10", 2, "Tunnel options conflict with forward method"),
    ("-a -t 10.221.222.146:443 -r 10.1.128.85:8443 -i --tun-type gre --tun-remcsum", 2, "Illegal 'tun-remcsum' option with the 'gre' tunnel type"),
    // ctl6_errors_kernel
    ("-a -t [fd00:dd64::dcb7]:9000 -r [fd01::75:8472]:9000 -m -w -1", 2, "illegal weight specified"),
    ("-A -t [fd00:dd64::dcb7]:0 -s rr", 2, "Zero port specified for non-persistent service"),
    ("-A -t [fd00:dd64::dcb7]:9001 -s rr -o", 2, "One-Packet Scheduling is only for UDP virtual services"),
    // ops_udp
    ("-E -u 10.163.143.181:9000 -s wrr -b ops", 2, "invalid scheduler flag `ops'"),
    // ctl_timeouts
    ("--set 31536000 31536000 31536000", 2, "invalid timeout value `31536000' specified"),
];
