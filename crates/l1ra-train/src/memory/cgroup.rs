//! What a Linux control group leaves to this process: containers are limited by one.
//!
//! Source: the kernel's `cgroup-v2.rst` (`memory.max`, `memory.current`, `memory.stat`) and
//! `cgroup-v1/memory.rst` (`memory.limit_in_bytes`, `memory.usage_in_bytes`).

use std::{
    fs::read_to_string,
    path::{Path, PathBuf},
};

/// The file names of one version of control groups.
struct Version {
    limit: &'static str,
    usage: &'static str,
    reclaimable: &'static str,
}

const V2: Version = Version {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: "inactive_file ",
};
const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file ",
};

/// Bytes left under the tightest limit of the groups that `membership` (`/proc/self/cgroup`) names
/// and of those above them; `None` where no group has a limit.
///
/// File pages that the kernel would drop first are not counted as used.
pub(super) fn available(membership: &str, root: &Path) -> Option<u64> {
    let left = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.is_empty() {
            return tightest(root, path, &V2);
        }
        let is_memory = controllers.split(',').any(|name| name == "memory");
        is_memory
            .then(|| tightest(&root.join("memory"), path, &V1))
            .flatten()
    };
    membership.lines().filter_map(left).min()
}

/// The least that is left in `path` under `root` and in the groups above it. In a container the
/// path may be the host's and not be there; the container's own group is then `root`.
fn tightest(root: &Path, path: &str, version: &Version) -> Option<u64> {
    let mut dir: PathBuf = root.join(path.trim_start_matches('/'));
    let mut least: Option<u64> = None;
    loop {
        if let Some(left) = left(&dir, version) {
            least = Some(least.map_or(left, |least| least.min(left)));
        }
        if dir == root || !dir.pop() {
            return least;
        }
    }
}

/// What is left in one group; `None` where it has no limit.
fn left(dir: &Path, version: &Version) -> Option<u64> {
    let number =
        |name: &str| -> Option<u64> { read_to_string(dir.join(name)).ok()?.trim().parse().ok() };
    let limit = number(version.limit)?; // "max", no limit, is no number.
    let usage = number(version.usage)?;
    let reclaimable = read_to_string(dir.join("memory.stat"))
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(version.reclaimable))?;
            line.trim().parse().ok()
        })
        .unwrap_or(0);
    Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let outer = [("memory.max", "1000\n"), ("memory.current", "900\n")];
        let stat = "anon 500\ninactive_file 300\n";
        write(&root.path().join("a"), &outer);
        write(&root.path().join("a"), &[("memory.stat", stat)]);
        let inner = [("memory.max", "max\n"), ("memory.current", "100\n")];
        write(&root.path().join("a/b"), &inner);
        assert_eq!(available("0::/a/b\n", root.path()), Some(400));
        write(&root.path().join("a/b"), &[("memory.max", "350\n")]);
        assert_eq!(available("0::/a/b\n", root.path()), Some(250));
    }

    #[test]
    fn version_one_and_no_limit() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("memory.limit_in_bytes", "800\n"),
            ("memory.usage_in_bytes", "500\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 50\n"),
        ];
        write(&root.path().join("memory/x"), &files);
        let membership = "5:cpu:/x\n4:memory,hugetlb:/x\n0::/\n";
        assert_eq!(available(membership, root.path()), Some(350));
        assert_eq!(available("0::/\n", root.path()), None);
        assert_eq!(available("", root.path()), None);
    }

    #[test]
    fn a_path_of_the_host_falls_back_to_the_root_group() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[("memory.max", "64\n"), ("memory.current", "60\n")],
        );
        assert_eq!(available("0::/host/only\n", root.path()), Some(4));
    }
}
