//! Whether a device works.
//!
//! Burn opens a device with its first operation. Without driver or library that is a panic, in a
//! thread of the backend's own, whose message the standard hook prints. So the first operation runs
//! here, in a thread, with a hook that keeps the message.

use std::{
    fmt::Write,
    panic,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use burn::tensor::{Device, Tensor};

use crate::{
    aside::aside,
    device::{DeviceError, failure::one_line, parse_device},
};

/// Hooks are the process's: one probe at a time.
pub(super) static ALONE: Mutex<()> = Mutex::new(());
/// Time for the first operation. Drivers compile their first kernel in it.
const LIMIT: Duration = Duration::from_secs(120);

/// The device that `name` says, as [`parse_device`] reads it, after a small computation on it gave
/// the right numbers.
///
/// # Errors
/// Those of [`parse_device`], and a device that does not work, with what its driver or library says
/// and what to do.
pub fn open_device(name: &str) -> Result<Device, DeviceError> {
    let device = parse_device(name)?;
    match check(device.clone()) {
        Ok(()) => Ok(device),
        Err(detail) => Err(not_there(name, detail)),
    }
}

/// The sum of a product that every device gets right.
pub(super) fn check(device: Device) -> Result<(), String> {
    let sum = guarded(move || {
        let a = Tensor::<2>::ones([4, 8], &device);
        let b = Tensor::<2>::ones([8, 2], &device);
        let sum = a.matmul(b).sum().into_data();
        sum.try_into_vec::<f32>()
            .ok()
            .and_then(|sum| sum.first().copied())
    })?;
    match sum {
        Some(64.0) => Ok(()),
        Some(other) => Err(format!("it adds 64 ones to {other}")),
        None => Err("it gives no numbers back".into()),
    }
}

pub(super) fn not_there(name: &str, detail: String) -> DeviceError {
    DeviceError::NotThere {
        name: name.into(),
        detail,
        remedy: remedy(name),
    }
}

fn remedy(name: &str) -> &'static str {
    match name.split(':').next() {
        Some("cuda") => {
            "It takes an NVIDIA GPU, its driver (libcuda) and CUDA's NVRTC library; nvidia-smi shows \
             whether the driver runs"
        }
        Some("rocm") => {
            "It takes an AMD GPU and the ROCm libraries; rocminfo shows whether they work"
        }
        Some("metal") => "It takes macOS",
        Some("wgpu" | "vulkan") => {
            "It takes a graphics driver with Vulkan; vulkaninfo shows whether there is one. On Debian and \
             Ubuntu, the packages libvulkan1 and mesa-vulkan-drivers have drivers for AMD, Intel \
             and the CPU, and NVIDIA's driver brings its own"
        }
        _ => "Try again",
    }
}

/// Does `work` in a thread; where it panics, or does not end, what was said.
pub(super) fn guarded<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let said = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&said);
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let mut said = hears.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_empty() {
            let payload = info.payload_as_str().unwrap_or("it gave up without a word");
            let _ = write!(said, "{payload}"); // A text takes all that is written.
        }
    }));
    let result = aside("probe", None, LIMIT, work);
    panic::set_hook(before);
    drop(alone);
    result.map_err(|error| {
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        match said.is_empty() {
            true => error.to_string(),
            false => one_line(&said),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_the_cpu_work() {
        for name in ["flex", "ndarray"] {
            open_device(name).unwrap();
        }
        assert_eq!(
            open_device("tpu").unwrap_err(),
            DeviceError::Unknown("tpu".into())
        );
    }

    #[test]
    fn a_panic_is_what_was_said_first() {
        let said = guarded(|| -> u8 {
            let inner = std::thread::spawn(|| panic!("no\n  driver."));
            inner.join().unwrap();
            0
        });
        assert_eq!(said.unwrap_err(), "no driver");
        assert_eq!(guarded(|| 7), Ok(7));
    }

    #[test]
    fn what_does_not_work_says_what_to_do() {
        let text = not_there("cuda:1", "no libcuda".into()).to_string();
        insta::assert_snapshot!(text, @"device `cuda:1` does not work here: no libcuda. It takes an NVIDIA GPU, its driver (libcuda) and CUDA's NVRTC library; nvidia-smi shows whether the driver runs. Or take `flex`, the CPU");
    }
}
