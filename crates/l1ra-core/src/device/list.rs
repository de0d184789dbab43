//! Every device of this build.

use std::{borrow::Cow, fmt};

use burn::tensor::{Device, DeviceType, FloatDType};
use l1ra_ops::bf16_instructions;
use serde::{Deserialize, Serialize};

use crate::device::{compiled_devices, is_cpu, probe};

/// A device, or a backend without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedDevice {
    /// What `--device` takes.
    pub name: String,
    /// What the hardware calls itself, where the backend says.
    pub hardware: Option<String>,
    /// Types of floating-point numbers that it stores and computes with.
    pub dtypes: Vec<Cow<'static, str>>,
    /// What a CPU multiplies bf16 with, if it has instructions for it; others widen it first.
    pub bf16_instructions: Option<Cow<'static, str>>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

impl fmt::Display for ListedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}", self.name)?;
        match &self.problem {
            Some(problem) => write!(f, "not there: {problem}"),
            None => {
                write!(f, "{:<14}", self.dtypes.join(" "))?;
                f.write_str(self.hardware.as_deref().unwrap_or("this machine's CPU"))?;
                match &self.bf16_instructions {
                    Some(name) => write!(f, ", bf16 on {name}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Every device of this build that answers, and the backends that have none. Each one is opened and
/// computes a sum.
pub fn list_devices() -> Vec<ListedDevice> {
    let backends = compiled_devices().into_iter();
    backends.flat_map(list_devices_of).collect()
}

impl ListedDevice {
    /// A backend without a device that answers, with the reason.
    pub fn missing(backend: &str, problem: String) -> Self {
        Self::new(backend.into(), Err(problem))
    }

    fn new(name: String, asked: Result<(Option<String>, Vec<&'static str>), String>) -> Self {
        let ((hardware, dtypes), problem) = match asked {
            Ok(answer) => (answer, None),
            Err(problem) => ((None, Vec::new()), Some(problem)),
        };
        let kernels = name == "flex" && problem.is_none();
        Self {
            name,
            hardware,
            dtypes: dtypes.into_iter().map(Cow::Borrowed).collect(),
            bf16_instructions: bf16_instructions().filter(|_| kernels).map(Cow::Borrowed),
            problem,
        }
    }
}

/// The same for one of [`compiled_devices`].
pub fn list_devices_of(backend: &'static str) -> Vec<ListedDevice> {
    let none = |problem| vec![ListedDevice::missing(backend, problem)];
    match enumerate(backend) {
        Err(problem) => none(problem),
        Ok(devices) if devices.is_empty() => none("no device answers".into()),
        Ok(devices) => {
            let devices = devices.into_iter().enumerate();
            devices
                .map(|(index, device)| {
                    let name = match is_cpu(backend) {
                        true => backend.into(),
                        false => format!("{backend}:{index}"),
                    };
                    ListedDevice::new(name, ask(device))
                })
                .collect()
        }
    }
}

/// Hardware and types of a device that works.
fn ask(device: Device) -> Result<(Option<String>, Vec<&'static str>), String> {
    probe::check(device.clone())?;
    probe::guarded(move || (hardware(&device), dtypes(&device)))
}

fn dtypes(device: &Device) -> Vec<&'static str> {
    let known = [
        ("f32", FloatDType::F32),
        ("bf16", FloatDType::BF16),
        ("f16", FloatDType::F16),
    ];
    let there = known
        .into_iter()
        .filter(|(_, dtype)| device.supports_dtype(*dtype));
    there.map(|(name, _)| name).collect()
}

#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
fn hardware(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

#[cfg(not(any(feature = "wgpu", feature = "cuda", feature = "rocm")))]
fn hardware(_: &Device) -> Option<String> {
    None
}

/// The devices of a backend, in the order of their indices; or what its driver says.
pub(super) fn enumerate(backend: &'static str) -> Result<Vec<Device>, String> {
    let kind: DeviceType = match backend {
        #[cfg(feature = "flex")]
        "flex" => DeviceType::Flex,
        #[cfg(feature = "ndarray")]
        "ndarray" => DeviceType::NdArray,
        #[cfg(feature = "wgpu")]
        "wgpu" => DeviceType::Wgpu,
        #[cfg(feature = "vulkan")]
        "vulkan" => DeviceType::Vulkan,
        #[cfg(feature = "metal")]
        "metal" => DeviceType::Metal,
        #[cfg(feature = "cuda")]
        "cuda" => DeviceType::Cuda,
        #[cfg(feature = "rocm")]
        "rocm" => DeviceType::Rocm,
        _ => return Ok(Vec::new()),
    };
    probe::guarded(move || Device::enumerate(kind).into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_listed_with_its_types() {
        let listed = list_devices();
        let flex = listed.iter().find(|device| device.name == "flex").unwrap();
        assert_eq!(flex.problem, None);
        assert!(flex.dtypes.iter().any(|dtype| dtype == "f32"), "{flex}");
        let flex = ListedDevice {
            bf16_instructions: None, // The machine's.
            ..flex.clone()
        };
        insta::assert_snapshot!(flex, @"flex       f32 bf16 f16  this machine's CPU");
        let amx = ListedDevice {
            bf16_instructions: Some("AMX".into()),
            ..flex
        };
        insta::assert_snapshot!(amx, @"flex       f32 bf16 f16  this machine's CPU, bf16 on AMX");
    }
}
