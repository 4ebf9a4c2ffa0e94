//! `lvsadm ready`: whether an `lvsd` can be driven.

use std::os::unix::fs::symlink;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use lvs_cli::verbs::Verbs;
use lvs_testkit::served::Served;

#[test]
fn ready_waits_for_an_lvsd_that_has_not_started_yet() {
    let path = std::env::temp_dir().join(format!("lvs-ready-{}", std::process::id()));
    let words = ["lvsadm", "--control", path.to_str().expect("text"), "ready"].map(str::to_owned);
    let ready = |more: Option<&str>| {
        let words = words.iter().cloned().chain(more.map(str::to_owned));
        Verbs::try_parse_from(words).expect("its words").run()
    };
    assert_eq!(ready(None).status, 1);
    thread::scope(|scope| {
        let (say, said) = mpsc::channel();
        scope.spawn(move || say.send(ready(Some("--wait"))).expect("somebody listens"));
        // It has found nobody by now, or finds nobody first.
        assert!(said.recv_timeout(Duration::from_millis(300)).is_err(), "it has waited for nobody");
        let served = Served::start(Default::default());
        symlink(served.path(), &path).expect("nothing is there");
        assert_eq!(said.recv().expect("it ends").stdout, "ready\n");
    });
    std::fs::remove_file(&path).expect("it was made");
}
