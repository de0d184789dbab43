//! Devices as the tasks name them, and the tests that run on one.

use anyhow::Result;
use clap::ValueEnum;

use crate::process;

/// A backend whose device is not `flex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Ndarray,
    Wgpu,
    Vulkan,
    Metal,
    Cuda,
    Rocm,
}

impl Backend {
    /// Its Cargo feature, which is also the device's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ndarray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
        }
    }
}

/// Tests that run on a device: against `flex`, and against recorded numbers.
pub(crate) const TESTS: [&str; 4] = ["rows", "parity", "devices", "golden_trace"];
/// Says to the tests against recorded numbers where to run.
pub(crate) const TEST_DEVICE: &str = "L1RA_TEST_DEVICE";

/// Logits, gradients, recorded traces and a short fine-tuning on the devices of `backend`. Kernels are
/// neither fused nor tuned, as in every test.
pub(crate) fn test(backend: Backend, arguments: &[String]) -> Result<()> {
    let name = backend.name();
    let mut command = process::cargo();
    command
        .args(["test", "--workspace", "--features"])
        .arg(format!("l1ra-train/{name}"))
        .env(TEST_DEVICE, name);
    for test in TESTS {
        command.args(["--test", test]);
    }
    // One after the other: the tests of one program share what the device's allocator holds.
    command.args(["--", "--nocapture", "--test-threads=1"]);
    process::run(command.args(arguments))
}
