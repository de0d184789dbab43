//! GPUs through Vulkan, Metal or DirectX.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{Need, libraries::find};

/// Where Vulkan's loader looks for drivers.
const DRIVERS: [&str; 3] = [
    "/usr/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
];

pub(super) fn needs() -> Vec<Need> {
    if cfg!(target_os = "macos") {
        let seen = Ok("part of macOS; nothing to install".into());
        return vec![Need::required("Metal", seen)];
    }
    if cfg!(windows) {
        let seen = Ok("part of Windows; a GPU's driver brings Vulkan as well".into());
        return vec![Need::required("DirectX 12", seen)];
    }
    let loader = find("libvulkan.so.1")
        .map(|path| path.display().to_string())
        .ok_or_else(|| "libvulkan.so.1; Debian and Ubuntu: apt install libvulkan1".into());
    vec![
        Need::required("Vulkan's loader", loader),
        Need::required("Vulkan drivers", drivers()),
    ]
}

/// The driver files, with what is a driver in software named.
fn drivers() -> Result<String, String> {
    let said = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .into_iter()
        .find_map(env::var_os);
    let files: Vec<PathBuf> = match said {
        Some(said) => env::split_paths(&said)
            .filter(|file| file.is_file())
            .collect(),
        None => DRIVERS
            .iter()
            .flat_map(|folder| json_files(folder.as_ref()))
            .collect(),
    };
    if files.is_empty() {
        return Err(
            "no driver in /usr/share/vulkan/icd.d; NVIDIA's driver brings its own, and on Debian and \
             Ubuntu mesa-vulkan-drivers has those of AMD, Intel and the CPU"
                .into(),
        );
    }
    let names: Vec<String> = files
        .iter()
        .filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned()))
        .map(|name| match name.starts_with("lvp") {
            true => format!("{name} (in software, on the CPU)"),
            false => name,
        })
        .collect();
    Ok(names.join(", "))
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    files
}
