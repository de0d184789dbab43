//! `l1ra devices`: what `--device` can be here.

use anyhow::Result;
use l1ra_core::device::{ListedDevice, list_devices};
use l1ra_train::memory::available_bytes;
use serde::Serialize;

use crate::output::Output;

#[derive(Serialize)]
struct Devices {
    devices: Vec<ListedDevice>,
    /// Memory that the machine has left; that of a GPU is not known here.
    available_bytes: Option<u64>,
    not_compiled: Vec<&'static str>,
}

pub(crate) fn devices(output: &Output) -> Result<()> {
    let listed = Devices {
        devices: list_devices(),
        available_bytes: available_bytes(),
        not_compiled: l1ra_core::device::other_devices(),
    };
    let mut text = String::new();
    for device in &listed.devices {
        text.push_str(&format!("{device}\n"));
    }
    if let Some(bytes) = listed.available_bytes {
        let gigabytes = bytes as f64 / 1e9;
        text.push_str(&format!(
            "memory     {gigabytes:.1} GB left on this machine\n"
        ));
    }
    if !listed.not_compiled.is_empty() {
        let names = listed.not_compiled.join(", ");
        text.push_str(&format!(
            "not built  {names}; each is a feature of its name: cargo build --release --features {}\n",
            listed.not_compiled[0]
        ));
    }
    output.result(text.trim_end(), &listed)
}
