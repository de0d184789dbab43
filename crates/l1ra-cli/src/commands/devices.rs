//! `l1ra devices`: what `--device` can be here.
//!
//! A driver that crashes takes its process along. So every backend of GPUs is asked in a process of its own:
//! this program with `--backend`.

use std::process::{Command, ExitStatus, Output as Said, Stdio};

use anyhow::Result;
use l1ra_core::device::{ListedDevice, compiled_devices, is_cpu, list_devices_of};
use l1ra_train::memory::available_bytes;
use serde::{Deserialize, Serialize};

use crate::{args::DevicesArgs, output::Output};

#[derive(Serialize)]
struct Devices {
    devices: Vec<ListedDevice>,
    /// Memory that the machine has left; that of a GPU is not known here.
    available_bytes: Option<u64>,
    not_compiled: Vec<&'static str>,
}

pub(crate) fn devices(args: &DevicesArgs, output: &Output) -> Result<()> {
    let of = |backend| match args.backend.is_some() || is_cpu(backend) {
        true => list_devices_of(backend),
        false => in_a_process(backend),
    };
    let wanted = |backend: &&str| args.backend.as_deref().is_none_or(|only| only == *backend);
    let backends = compiled_devices().into_iter().filter(wanted);
    let listed = Devices {
        devices: backends.flat_map(of).collect(),
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

/// What this program lists of one backend, started once more.
fn in_a_process(backend: &'static str) -> Vec<ListedDevice> {
    let itself = std::env::current_exe();
    let said = itself.and_then(|program| {
        Command::new(program)
            .args(["--json", "--quiet", "devices", "--backend", backend])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
    });
    match said {
        Ok(said) => listed(backend, &said),
        Err(_) => list_devices_of(backend), // No process is to be had.
    }
}

fn listed(backend: &str, said: &Said) -> Vec<ListedDevice> {
    #[derive(Deserialize)]
    struct Line {
        devices: Vec<ListedDevice>,
    }
    match serde_json::from_slice::<Line>(&said.stdout) {
        Ok(line) if said.status.success() => line.devices,
        _ => vec![ListedDevice::missing(backend, crash(said.status))],
    }
}

/// How a process ended that was asked and gave no answer.
fn crash(status: ExitStatus) -> String {
    let how = match signal(status) {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    };
    format!(
        "its driver crashed in a small product ({how}); another version of the driver may not, and other \
         devices still work"
    )
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn said(status: i32, line: &str) -> Said {
        Said {
            status: ExitStatus::from_raw(status),
            stdout: line.into(),
            stderr: Vec::new(),
        }
    }

    #[test]
    fn a_crash_is_told_as_one() {
        let line = r#"{"devices":[]}"#;
        assert_eq!(listed("vulkan", &said(0, line)), []);
        let crashed = listed("vulkan", &said(11, ""));
        assert_eq!(listed("vulkan", &said(11, line)), crashed);
        insta::assert_snapshot!(crashed[0], @"vulkan     not there: its driver crashed in a small product (signal 11); another version of the driver may not, and other devices still work");
    }

    #[test]
    fn what_a_process_lists_is_read_back() {
        let devices = list_devices_of("flex");
        let line = serde_json::json!({"devices": devices, "more": 1});
        assert_eq!(listed("flex", &said(0, &line.to_string())), devices);
    }
}
