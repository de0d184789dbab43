//! Devices by name, as `--device` takes them.

pub use burn::tensor::Device;

/// A device name that cannot be used.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum DeviceError {
    /// The name is none that is known.
    #[error("device `{0}` is unknown; known: {KNOWN}")]
    Unknown(String),
    /// The index after the colon is no number.
    #[error("device `{0}`: the part after `:` is a device index, a number from 0")]
    Index(String),
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
}

const KNOWN: &str = "flex, ndarray, wgpu[:i], vulkan[:i], metal[:i], cuda[:i], rocm[:i]";

/// The device names that this build can open.
pub fn compiled_devices() -> Vec<&'static str> {
    [
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
    ]
    .into_iter()
    .filter_map(|(name, compiled)| compiled.then_some(name))
    .collect()
}

/// Opens the device that `name` says: `flex`, `ndarray`, `wgpu[:i]`, `vulkan[:i]`, `metal[:i]`,
/// `cuda[:i]` or `rocm[:i]`. Without an index, the backend's default device.
///
/// # Errors
/// An unknown name, a bad index, or a device whose feature was not compiled in.
pub fn parse_device(name: &str) -> Result<Device, DeviceError> {
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
opener!("wgpu", wgpu(index) => Device::wgpu(gpu(index)));
opener!("vulkan", vulkan(index) => Device::vulkan(gpu(index)));
opener!("metal", metal(index) => Device::metal(gpu(index)));
opener!("cuda", cuda(index) => Device::cuda(index.unwrap_or(0)));
opener!("rocm", rocm(index) => Device::rocm(index.unwrap_or(0)));

#[cfg(feature = "wgpu")]
fn gpu(index: Option<usize>) -> burn::tensor::DeviceKind {
    use burn::tensor::DeviceKind;
    index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu)
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
