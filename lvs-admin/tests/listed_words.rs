//! Words of listings that other tests' tables do not have, as stock ipvsadm prints them (recordings `error6_kernel` and
//! `service_flags` of the control plane, `conformance/netlink/`).

use lvs_admin::{ListOptions, Names, SaveOptions, list, parse_rules, save};
use lvs_core::Command;
use lvs_core::view::ServiceView;

/// A service made from a rule, as a listing shows it and as it is saved: the lines.
fn shown(rule: &str) -> (String, String) {
    let commands = parse_rules(rule).unwrap();
    let [Command::AddService(key, config)] = &commands[..] else { panic!("{rule} adds a service") };
    let view = ServiceView::new(*key, config.clone());
    let names = Names::none();
    let options = ListOptions { numeric: true, ..ListOptions::default() };
    let listed = list(std::slice::from_ref(&view), &options, &names).unwrap();
    let saved = save(&[view], SaveOptions { numeric: true, ..SaveOptions::default() }, &names);
    (listed.lines().last().unwrap().to_owned(), saved.trim_end().to_owned())
}

#[test]
fn an_ipv6_address_of_ipv4_is_written_with_dots() {
    for (address, written) in [
        ("::102:304", "::1.2.3.4"),
        ("::ffff:102:304", "::ffff:1.2.3.4"),
        // Less than an IPv4 address behind the zeros, and more.
        ("::304", "::304"),
        ("::1", "::1"),
        ("::1:0:0", "::1:0:0"),
    ] {
        let (listed, saved) = shown(&format!("-A -t [{address}]:80 -s rr"));
        assert_eq!(listed, format!("TCP  [{written}]:80 rr"));
        assert_eq!(saved, format!("-A -t [{written}]:80 -s rr"));
    }
}

#[test]
fn the_third_flag_of_sh_and_mh_is_saved_but_not_listed() {
    for scheduler in ["sh", "mh"] {
        let rule = format!("-A -t 192.0.2.1:80 -s {scheduler} -b {scheduler}-fallback,{scheduler}-port,flag-3");
        let listed = format!("TCP  192.0.2.1:80 {scheduler} ({scheduler}-fallback,{scheduler}-port)");
        assert_eq!(shown(&rule), (listed, rule));
    }
    let rule = "-A -t 192.0.2.1:80 -s rr -b flag-1,flag-3";
    assert_eq!(shown(rule), ("TCP  192.0.2.1:80 rr (flag-1,flag-3)".to_owned(), rule.to_owned()));
}
