//! What the targets share: loaders read files, so an input becomes a folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
};

/// A folder of this process; in memory where the system has such a place.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() {
            memory
        } else {
            env::temp_dir()
        };
        let folder = base.join(format!("l1ra-fuzz-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder for inputs");
        folder
    })
}

/// Writes `files` into a folder and hands it to `load`.
pub fn with_files(files: &[(&str, &[u8])], load: impl FnOnce(&Path)) {
    let folder = folder();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).expect("a file of an input");
    }
    load(folder);
}

/// Cuts an input into `N` parts: a length of four bytes before each but the last, which is the rest.
/// A length beyond the end takes what there is.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    std::array::from_fn(|index| match rest.split_first_chunk::<4>() {
        Some((length, after)) if index + 1 < N => {
            let length = u32::from_le_bytes(*length) as usize;
            let (part, after) = after.split_at(length.min(after.len()));
            rest = after;
            part
        }
        _ => std::mem::take(&mut rest),
    })
}
