//! `lvsadm exec`: a stock program, with the preload library that brings its netlink messages to `lvsd`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::said::Said;
use lvs_client::socket::VARIABLE;

/// Becomes `command`. Returns only what is wrong.
pub fn exec(command: &[OsString], control: &Path) -> Said {
    let library = match library() {
        Ok(library) => library,
        Err(complaint) => return Said::complaint(NOT_FOUND, complaint),
    };
    let Some((program, arguments)) = command.split_first() else { return Said::default() };
    // ld.so(8): both end a name in its list.
    if library.as_os_str().as_encoded_bytes().iter().any(|byte| b" :".contains(byte)) {
        let library = library.display();
        return Said::complaint(NOT_RUN, format!("lvsadm: {library} has a space or a colon in its path: move it"));
    }
    // The program may change its folder, as keepalived does.
    let control = match std::path::absolute(control) {
        Ok(control) => control,
        Err(error) => return Said::complaint(NOT_RUN, format!("lvsadm: {}: {error}", control.display())),
    };
    let mut preload = library.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let error = Command::new(program).args(arguments).env("LD_PRELOAD", preload).env(VARIABLE, control).exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    Said::complaint(status, format!("lvsadm: cannot run {}: {error}", program.display()))
}

/// The library: where [`LIBRARY_VARIABLE`] says, beside this program, or in the system's folders.
fn library() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        return if named.is_file() {
            Ok(named)
        } else {
            Err(format!("lvsadm: {LIBRARY_VARIABLE} names {}, which is no file", named.display()))
        };
    }
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    let beside = beside.into_iter().flat_map(|folder| [folder.join(LIBRARY), folder.join("../lib").join(LIBRARY)]);
    let folders: Vec<PathBuf> = beside.chain(FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY))).collect();
    folders.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        format!(
            "lvsadm: {LIBRARY} is neither beside lvsadm nor in the system's folders: install it, or name it with \
             {LIBRARY_VARIABLE} (in a checkout: cargo build -p lvs-preload)"
        )
    })
}

const LIBRARY: &str = "liblvs_preload.so";
const LIBRARY_VARIABLE: &str = "LVS_PRELOAD";
const FOLDERS: &[&str] = &["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/lvs"];
/// As shells say that a program is not found, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;
