use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use lvs_core::{DirectorConfig, Seed};
use lvs_testkit::{Storage, udp};

use super::*;

const RULES: &str =
    "-A -u 192.0.2.80:53 -s rr\n-a -u 192.0.2.80:53 -r 10.0.0.2:53 -m\n-a -u 192.0.2.80:53 -r 10.0.0.3:53 -m\n";
const CLIENTS: u8 = 40;

/// A directory that ends with this.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lvsd-state-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("connections")
    }

    fn state(&self) -> State {
        State::open(&self.0).expect("it can be made")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn steering(shards: u32) -> Steering {
    Steering::new(shards, vec!["10.0.0.0/8".parse().expect("a network")], Seed::new(7))
}

fn directors(count: u16) -> Vec<Director> {
    let director = |shard| {
        let mut director = Director::new(DirectorConfig::default(), Seed::new(shard));
        crate::rules::load(&mut director, RULES).expect("they are right");
        director
    };
    (0..u64::from(count)).map(director).collect()
}

/// Each client's first packet, at its worker.
fn traffic(directors: &mut [Director], steering: &Steering) {
    for client in 1..=CLIENTS {
        let packet = udp(format!("203.0.113.{client}:999").as_str(), "192.0.2.80:53").payload(b"x").build();
        let mut storage = Storage::with_room(&packet, 64, 2048);
        let _ = directors[steering.shard(&packet)].handle_packet(Instant::from_secs(1), &mut storage.packet());
    }
}

fn counts(directors: &[Director]) -> Vec<usize> {
    directors.iter().map(|director| director.connection_count(Instant::from_secs(1))).collect()
}

/// Saved by so many workers, loaded by so many.
fn moved(place: &Place, from: u16, to: u16) -> Vec<Director> {
    let (mut old, old_steering) = (directors(from), steering(from.into()));
    traffic(&mut old, &old_steering);
    place.state().save(old.iter(), &old_steering, Instant::from_secs(1));
    let mut new = directors(to);
    place.state().load(&mut new, &steering(to.into()), Instant::from_secs(1));
    new
}

#[test]
fn another_number_of_workers_shares_the_connections_by_their_clients() {
    for (from, to) in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 1)] {
        let place = Place::new(&format!("workers-{from}-{to}"));
        let new = moved(&place, from, to);
        let (mut expected, steering) = (directors(to), steering(to.into()));
        traffic(&mut expected, &steering);
        assert_eq!(counts(&new), counts(&expected), "from {from} to {to}");
        let total: u64 =
            new.iter().map(|director| director.services(Instant::from_secs(1))[0].statistics.live.connections).sum();
        assert_eq!(total, u64::from(CLIENTS));
    }
}

#[test]
fn the_file_is_its_owners_alone() {
    let place = Place::new("mode");
    moved(&place, 1, 1);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&place.0), mode(&place.file())), (0o700, 0o600));
    assert!(!place.0.join("connections.new").exists());
}

#[test]
fn a_file_that_is_broken_is_kept_aside_and_nothing_of_it_is_loaded() {
    let place = Place::new("broken");
    moved(&place, 2, 2);
    let bytes = fs::read(place.file()).expect("it was saved");
    // Among them where the second worker's part begins.
    let second = (64..bytes.len()).find(|at| bytes[*at..].starts_with(b"LVSSNP")).expect("there are two");
    for at in [0, 9, 17, 45, second, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        for content in [&damaged[..], &bytes[..at]] {
            fs::write(place.file(), content).expect("it can be written");
            fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).expect("it is ours");
            let mut new = directors(2);
            place.state().load(&mut new, &steering(2), Instant::from_secs(1));
            assert_eq!(counts(&new), [0, 0], "at {at}");
            assert_eq!(fs::read(place.0.join("connections.broken")).expect("it is kept"), content);
            assert!(!place.file().exists());
        }
    }
}

#[test]
fn a_link_and_a_file_that_others_may_read_are_not_believed() {
    let place = Place::new("link");
    moved(&place, 1, 1);
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let loaded = || {
        let mut new = directors(1);
        place.state().load(&mut new, &steering(1), Instant::from_secs(1));
        counts(&new)
    };
    assert_eq!(loaded(), [0]);
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert_eq!(loaded(), [usize::from(CLIENTS)]);
    let elsewhere = place.0.join("elsewhere");
    fs::rename(place.file(), &elsewhere).expect("it can be moved");
    symlink(&elsewhere, place.file()).expect("links can be made");
    assert_eq!(loaded(), [0]);
    // Saving puts a file in the link's place, and leaves alone what it leads to.
    let before = fs::read(&elsewhere).expect("it is there");
    moved(&place, 1, 1);
    assert!(fs::symlink_metadata(place.file()).expect("it is there").is_file());
    assert_eq!(fs::read(&elsewhere).expect("it is there"), before);
}

#[test]
fn a_directory_in_which_others_may_write_is_refused_with_what_to_do() {
    let place = Place::new("open");
    place.state();
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let complaint = State::open(&place.0).expect_err("others may write").to_string();
    assert!(complaint.contains("chmod 700"), "{complaint}");
}

#[test]
fn what_was_saved_before_stays_where_there_is_no_room() {
    let place = Place::new("full");
    moved(&place, 1, 1);
    let before = fs::read(place.file()).expect("it was saved");
    let folder = Folder::open(&place.0).expect("it is ours");
    let outcome = folder.write(|file| {
        file.write_all(&[0; 1 << 20])?;
        Err(io::Error::from(rustix::io::Errno::NOSPC))
    });
    assert!(outcome.is_err());
    assert_eq!(fs::read(place.file()).expect("it stays"), before);
    assert!(!place.0.join("connections.new").exists());
}
