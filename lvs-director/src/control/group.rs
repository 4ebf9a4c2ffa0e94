//! The group that may read at the second socket: its number.

use std::fs;

/// The number of a group: of a name in /etc/group, or as it is given.
///
/// # Errors
/// A sentence: there is no such group.
pub fn group_number(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    number_in(&groups, group).ok_or_else(|| {
        format!("there is no group {group:?} in /etc/group: make it ('groupadd {group}'), or give a number")
    })
}

/// group(5): name, password, number, members.
fn number_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_or_number() {
        let groups = "root:x:0:\nlvs:x:998:alice,bob\nbroken\nworse:x\n";
        assert_eq!([number_in(groups, "lvs"), number_in(groups, "root")], [Some(998), Some(0)]);
        assert_eq!(["", "lv", "broken", "worse", "998"].map(|name| number_in(groups, name)), [None; 5]);
        assert_eq!(group_number("12"), Ok(12));
        assert!(group_number("no such group").unwrap_err().contains("groupadd"));
    }
}
