//! The configuration file: the example in `packaging/`, and what `lvsd check` and `lvsd run --config` say of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lvs_core::DirectorConfig;
use lvs_director::capacity;
use lvs_director::configuration::file::parse;

/// The example with nothing commented out but its words.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/lvsd.toml");
    let text = fs::read_to_string(path).expect("it is in the repository");
    let is_key = |rest: &str| rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
    let line = |line: &str| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line).to_owned() + "\n";
    text.lines().map(line).collect()
}

/// The keys that the reader expects where it finds this.
fn keys_expected(wrong: &str) -> Vec<String> {
    let complaint = parse(wrong).expect_err("there is no such key").complaint;
    let listed = complaint.split_once("expected").expect("it lists them").1;
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_is_in_the_example() {
    let example = example();
    let keys = [keys_expected("no-such-key = 1"), keys_expected("[[device]]\nno-such-key = 1")].concat();
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys {
        let is_told = |line: &str| line.starts_with(&format!("{key} = ")) || line.trim_matches(['[', ']']) == key;
        assert!(example.lines().any(is_told), "{key} is missing");
    }
}

#[test]
fn the_example_is_right_and_shows_what_lvsd_chooses() {
    let example = example();
    let file = parse(&example).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(file.devices.expect("two").names(), ["eth0", "eth1"]);
    let chosen = capacity::config(1 << 30, 1);
    let settings = example.split_once("[settings]\n").expect("it is there").1;
    let shown: Vec<&str> = settings.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let right: Vec<String> = DirectorConfig::names()
        .map(|named| (named.name, chosen.get(named.name).expect("it has a value")))
        .map(|(name, value)| match value.parse::<u32>() {
            Ok(number) => format!("{name} = {number}"),
            Err(_) => format!("{name} = \"{value}\""),
        })
        .collect();
    assert_eq!(shown, right, "to be shown:\n{}", in_words());
}

/// The settings as the example is to show them.
fn in_words() -> String {
    let chosen = capacity::config(1 << 30, 1);
    let mut text = String::new();
    for named in DirectorConfig::names() {
        let value = chosen.get(named.name).expect("it has a value");
        let value = if value.parse::<u32>().is_ok() { value } else { format!("\"{value}\"") };
        text += &format!("\n# {} Takes {}.\n#{} = {value}\n", named.about, named.format, named.name);
    }
    text
}

/// Any text: no panic, and what is wrong has a line of the text and a sentence in one line.
fn check_any(text: &str) {
    if let Err(error) = parse(text) {
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
        assert!((1..=lines).contains(&error.line), "{error} in\n{text}");
        assert!(!error.complaint.is_empty() && !error.complaint.contains('\n'), "{error:?} in\n{text}");
    }
}

#[test]
fn whatever_is_wrong_with_a_text_has_its_line() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/configuration");
    for entry in fs::read_dir(corpus).expect("it is in the repository") {
        let text = fs::read(entry.expect("readable").path()).expect("readable");
        check_any(&String::from_utf8_lossy(&text));
    }
    // The example cut off anywhere, and with any byte changed.
    let example: String =
        example().lines().filter(|line| !line.starts_with('#')).map(|line| line.to_owned() + "\n").collect();
    for at in (0..example.len()).step_by(5) {
        check_any(&example[..at]);
        for other in ["\0", "\"", "[", "]", "=", "\n", "#", "\u{2028}", "9"] {
            check_any(&format!("{}{other}{}", &example[..at], &example[at + 1..]));
        }
    }
}

/// A folder that is gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("configuration-{name}.{}", std::process::id()));
        fs::create_dir_all(&path).expect("the directory for temporary files can be written");
        files.iter().for_each(|(name, text)| fs::write(path.join(name), text).expect("it can be written"));
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `lvsd`'s status, standard output and standard error.
fn lvsd(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lvsd")).args(words).output().expect("lvsd starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const RULES: &str = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.2.0.11:8080 -m\n";

#[test]
fn a_right_file_is_said_to_be_right_and_nothing_is_touched() {
    let text = "rules = \"rules\"\nworkers = 2\nseed-file = \"seed\"\ncontrol = \"control.sock\"\n\
                [[device]]\nname = \"no-such-dev\"\nkind = \"afpacket\"\n[settings]\ndrop_entry = 0\n";
    let folder = Folder::new("right", &[("lvsd.toml", text), ("rules", RULES)]);
    let path = folder.file("lvsd.toml");
    let (status, stdout, stderr) = lvsd(&["check", &path]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert_eq!(stdout, format!("{path}: right; no-such-dev, 2 workers, 1 services with 1 servers\n"));
    let mut there: Vec<_> =
        fs::read_dir(&folder.0).expect("it is there").map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["lvsd.toml", "rules"]);
}

/// `lvsd check` and `lvsd run` say the same of a file with this text, beside these rules.
fn check_refused(name: &str, text: &str, rules: &str, complaint: &str) {
    let folder = Folder::new(name, &[("lvsd.toml", text), ("rules", rules)]);
    let path = folder.file("lvsd.toml");
    for words in [&["check", &path][..], &["run", "--config", &path]] {
        let (status, stdout, stderr) = lvsd(words);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{words:?}: {stderr}");
        let complaint = complaint.replace("FOLDER", folder.0.to_str().expect("text"));
        assert_eq!(stderr, format!("lvsd: {complaint}\n"), "{words:?}");
    }
}

#[test]
fn by_tun_the_host_cannot_own_the_addresses() {
    let text = "rules = \"rules\"\naddresses = \"host\"\n[[device]]\nname = \"lvs0\"\nkind = \"tun\"\n";
    let folder = Folder::new("owner", &[("lvsd.toml", text), ("rules", RULES)]);
    let path = folder.file("lvsd.toml");
    for words in [&["check", &path][..], &["run", "--config", &path]] {
        let (status, stdout, stderr) = lvsd(words);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{words:?}: {stderr}");
        assert!(stderr.contains("the host cannot own the virtual addresses with the TUN device lvs0"), "{stderr}");
        assert!(stderr.contains("--addresses lvsd"), "{stderr}");
    }
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    check_refused(
        "key",
        "rules = \"rules\"\ndevice = []\nspeed = 9\n",
        RULES,
        "FOLDER/lvsd.toml, line 3: unknown field `speed`, expected one of `rules`, `workers`, `on-device-loss`, \
         `addresses`, `control`, `control-group`, `http`, `http-token`, `seed-file`, `state`, `state-every`, `log`, `device`, `settings`",
    );
    check_refused(
        "setting",
        "[settings]\n\ndrop_entri = 1\n",
        RULES,
        "FOLDER/lvsd.toml, line 3: there is no setting drop_entri; near are drop_entry, drop_packet",
    );
    check_refused(
        "rules",
        "rules = \"rules\"\ncontrol = \"control.sock\"\n",
        &format!("{RULES}-A -t 192.0.2.80:80 -s rr\n"),
        "FOLDER/rules, line 3: Service already exists\n  -A -t 192.0.2.80:80 -s rr",
    );
    check_refused(
        "missing",
        "rules = \"other\"\ncontrol = \"control.sock\"\n",
        RULES,
        "cannot read FOLDER/other: No such file or directory (os error 2)",
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for words in [&["check", "no/such.toml"][..], &["run", "--config", "no/such.toml"]] {
        let (status, _, stderr) = lvsd(words);
        assert_eq!(status, Some(1));
        assert_eq!(stderr, "lvsd: cannot read no/such.toml: No such file or directory (os error 2)\n");
    }
}

#[test]
fn what_happens_is_told_as_json_where_that_is_asked_for() {
    let folder = Folder::new("json", &[("lvsd.toml", "log = \"json\"\nrules = \"other\"\n")]);
    let (status, _, stderr) = lvsd(&["run", "--config", &folder.file("lvsd.toml")]);
    assert_eq!(status, Some(1));
    let object: serde_json::Value = serde_json::from_str(&stderr).expect("one line, one object");
    assert_eq!(object["level"], "ERROR");
    let message = object["message"].as_str().expect("a sentence");
    assert!(message.starts_with("cannot read ") && message.contains("/other: "), "{stderr}");
    assert!(object["timestamp"].as_str().expect("a time").starts_with("20"), "{stderr}");
    // The command line stands above the file.
    let (_, _, stderr) = lvsd(&["run", "--config", &folder.file("lvsd.toml"), "--log", "human"]);
    assert!(stderr.starts_with("lvsd: cannot read "), "{stderr}");
}
