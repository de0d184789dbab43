//! Devices by name, as `--device` takes them: which there are, and whether they work.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | names, and the device behind a name |
//! | `probe.rs` | whether a device works, before anything depends on it |
//! | `failure.rs` | a device that gives up in the middle of the work, as an error |
//! | `several.rs` | several devices in one name |
//! | `list.rs` | every device of this build, with what it can do |

mod failure;
mod list;
mod probe;
mod several;

pub use burn::tensor::Device;
pub use failure::{DeviceFailure, guard};
pub use list::{ListedDevice, list_devices, list_devices_of};
pub use probe::open_device;
pub use several::{open_devices, parse_devices};

/// A device name that cannot be used.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum DeviceError {
    /// The name is none that is known.
    #[error("device `{0}` is unknown; known: {KNOWN}")]
    Unknown(String),
    /// The index after the colon is no number.
    #[error("device `{0}`: the part after `:` is a device index, a number from 0")]
    Index(String),
    /// Several devices where one is taken.
    #[error("device `{0}`: one device is taken here; several are for training")]
    OnlyOne(String),
    /// Several devices that cannot be taken together.
    #[error("devices `{names}`: {detail}")]
    Several {
        /// The devices as they were given.
        names: String,
        /// What is wrong with them.
        detail: String,
    },
    /// A CPU device has no index.
    #[error("device `{0}`: `{1}` is a CPU device and takes no index")]
    NoIndex(String, &'static str),
    /// The device was not compiled in.
    #[error(
        "device `{name}` was not compiled in; build again with `--features {feature}` \
         (compiled in: {compiled})"
    )]
    NotCompiled {
        /// The device as it was given.
        name: String,
        /// The Cargo feature that adds it.
        feature: &'static str,
        /// What this build has.
        compiled: String,
    },
    /// There is no device of that index.
    #[error(
        "device `{name}`: this machine has {count} of them, counted from 0; `l1ra devices` lists them"
    )]
    NoSuchIndex {
        /// The device as it was given.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// The device does not work.
    #[error("device `{name}` does not work here: {detail}. {remedy}. Or take `flex`, the CPU")]
    NotThere {
        /// The device as it was given.
        name: String,
        /// What its driver or library says.
        detail: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

const KNOWN: &str = "flex, ndarray, wgpu[:i], vulkan[:i], metal[:i], cuda[:i], rocm[:i]";

/// Every backend, and whether it is compiled in.
const BACKENDS: [(&str, bool); 7] = [
    ("flex", cfg!(feature = "flex")),
    ("ndarray", cfg!(feature = "ndarray")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("metal", cfg!(feature = "metal")),
    ("cuda", cfg!(feature = "cuda")),
    ("rocm", cfg!(feature = "rocm")),
];

/// The device names that this build can open.
pub fn compiled_devices() -> Vec<&'static str> {
    named(true)
}

/// Whether the devices of a backend are this machine's CPU.
pub fn is_cpu(backend: &str) -> bool {
    matches!(backend, "flex" | "ndarray")
}

/// The device names that another build could open, each a Cargo feature.
pub fn other_devices() -> Vec<&'static str> {
    named(false)
}

fn named(compiled: bool) -> Vec<&'static str> {
    let backends = BACKENDS.into_iter();
    backends
        .filter_map(|(name, is)| (is == compiled).then_some(name))
        .collect()
}

/// The device that `name` says: `flex`, `ndarray`, `wgpu[:i]`, `vulkan[:i]`, `metal[:i]`,
/// `cuda[:i]` or `rocm[:i]`. Without an index, the backend's default device; with one, the device of
/// that place in [`list_devices`]. Nothing is run on it: Burn opens a device with its first
/// operation, and panics where that fails; [`open_device`] does so with an error.
///
/// # Errors
/// An unknown name, a bad index, or a device whose feature was not compiled in.
pub fn parse_device(name: &str) -> Result<Device, DeviceError> {
    if name.contains(',') {
        return Err(DeviceError::OnlyOne(name.into()));
    }
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse().map_err(|_| DeviceError::Index(name.into()))?;
            (kind, Some(index))
        }
        None => (name, None),
    };
    match kind {
        "flex" => without_index(name, index, "flex").and_then(|()| flex(name)),
        "ndarray" => without_index(name, index, "ndarray").and_then(|()| ndarray(name)),
        "wgpu" => wgpu(name, index),
        "vulkan" => vulkan(name, index),
        "metal" => metal(name, index),
        "cuda" => cuda(name, index),
        "rocm" => rocm(name, index),
        _ => Err(DeviceError::Unknown(name.into())),
    }
}

fn without_index(name: &str, index: Option<usize>, kind: &'static str) -> Result<(), DeviceError> {
    match index {
        Some(_) => Err(DeviceError::NoIndex(name.into(), kind)),
        None => Ok(()),
    }
}

#[allow(dead_code)] // Not used where every backend is compiled in.
fn not_compiled(name: &str, feature: &'static str) -> DeviceError {
    let compiled = compiled_devices();
    let compiled = if compiled.is_empty() {
        "none".into()
    } else {
        compiled.join(", ")
    };
    DeviceError::NotCompiled {
        name: name.into(),
        feature,
        compiled,
    }
}

/// One function per backend: the device, or the error that names its feature.
macro_rules! opener {
    ($feature:literal, $name:ident($($index:ident)?) => $open:expr) => {
        #[cfg(feature = $feature)]
        fn $name(_: &str $(, $index: Option<usize>)?) -> Result<Device, DeviceError> {
            Ok($open)
        }
        #[cfg(not(feature = $feature))]
        fn $name(name: &str $(, $index: Option<usize>)?) -> Result<Device, DeviceError> {
            $(let _ = $index;)?
            Err(not_compiled(name, $feature))
        }
    };
}

opener!("flex", flex() => Device::flex());
opener!("ndarray", ndarray() => {
    #[allow(deprecated)] // Kept because users know it; Burn will drop it after 0.22.
    Device::ndarray()
});
opener!("wgpu", wgpu(index) => numbered("wgpu", index, Device::wgpu(GPU))?);
opener!("vulkan", vulkan(index) => numbered("vulkan", index, Device::vulkan(GPU))?);
opener!("metal", metal(index) => numbered("metal", index, Device::metal(GPU))?);
opener!("cuda", cuda(index) => Device::cuda(index.unwrap_or(0)));
opener!("rocm", rocm(index) => Device::rocm(index.unwrap_or(0)));

/// The one that the graphics driver puts first.
#[cfg(feature = "wgpu")]
const GPU: burn::tensor::DeviceKind = burn::tensor::DeviceKind::DefaultDevice;

#[cfg(feature = "wgpu")]
fn numbered(
    backend: &'static str,
    index: Option<usize>,
    default: Device,
) -> Result<Device, DeviceError> {
    let Some(index) = index else {
        return Ok(default);
    };
    let name = format!("{backend}:{index}");
    let mut devices = list::enumerate(backend).map_err(|detail| probe::not_there(&name, detail))?;
    match index < devices.len() {
        true => Ok(devices.swap_remove(index)),
        false => Err(DeviceError::NoSuchIndex {
            name,
            count: devices.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_devices_open() {
        parse_device("flex").unwrap();
        parse_device("ndarray").unwrap();
    }

    #[test]
    fn a_missing_backend_names_its_feature() {
        let error = parse_device("cuda:1").unwrap_err().to_string();
        assert_eq!(
            error,
            "device `cuda:1` was not compiled in; build again with `--features cuda` \
             (compiled in: flex, ndarray)"
        );
    }

    #[test]
    fn bad_names_are_refused() {
        assert!(matches!(parse_device("gpu"), Err(DeviceError::Unknown(_))));
        assert!(matches!(parse_device("cuda:x"), Err(DeviceError::Index(_))));
        assert!(matches!(
            parse_device("flex:0"),
            Err(DeviceError::NoIndex(..))
        ));
    }
}
