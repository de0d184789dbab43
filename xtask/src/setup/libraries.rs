//! Shared libraries, looked for where the system's loader looks.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders that Linux's loader goes through without a cache, by architecture or not.
const FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/lib/wsl/lib",
];

/// Where the loader finds a library whose name begins with `name`: by its cache, `LD_LIBRARY_PATH` or its
/// usual folders.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let said = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = env::split_paths(&said).chain(FOLDERS.map(PathBuf::from));
    let mut folders = folders.filter(|folder| !folder.as_os_str().is_empty());
    in_cache(name).or_else(|| folders.find_map(|folder| in_folder(&folder, name)))
}

fn in_cache(name: &str) -> Option<PathBuf> {
    let listed = Command::new("ldconfig").arg("-p").output().ok()?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(name))?;
    let (_, path) = line.split_once("=> ")?;
    Some(path.trim().into())
}

pub(super) fn in_folder(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let file = path.file_name().unwrap_or_default();
            file.to_string_lossy().starts_with(name)
        })
        .collect();
    found.sort();
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_the_start_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("libnvrtc.so.13"), "").unwrap();
        let here = [dir.path().to_path_buf()];
        let found = in_folder(&here[0], "libnvrtc.so").unwrap();
        assert_eq!(found, dir.path().join("libnvrtc.so.13"));
        assert_eq!(find("libnowhere-to-be-found.so"), None);
    }
}
