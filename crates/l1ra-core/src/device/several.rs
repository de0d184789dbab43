//! Several devices in one name: `cuda:0,1`.

use burn::tensor::Device;

use crate::device::{DeviceError, is_cpu, open_device, parse_device};

/// The devices that `names` says, in its order: one, as [`parse_device`] reads it, or several with
/// commas between them, where a number alone is another index of the backend before it: `cuda:0,1` is
/// `cuda:0,cuda:1`. All are of one backend. A GPU is named once; a CPU may be named again
/// (`flex,flex`), which gives no speed, but lets what several devices do be seen on one machine.
///
/// # Errors
/// Those of [`parse_device`]; devices of two backends; a GPU named twice or without an index.
pub fn parse_devices(names: &str) -> Result<Vec<Device>, DeviceError> {
    each(names, parse_device)
}

/// The devices that `names` says, as [`parse_devices`] reads them, each tried as by [`open_device`].
///
/// # Errors
/// Those of [`parse_devices`] and of [`open_device`].
pub fn open_devices(names: &str) -> Result<Vec<Device>, DeviceError> {
    each(names, open_device)
}

fn each(
    names: &str,
    open: impl Fn(&str) -> Result<Device, DeviceError>,
) -> Result<Vec<Device>, DeviceError> {
    let singles = split(names)?;
    singles.iter().map(|name| open(name)).collect()
}

/// `cuda:0,1` as `cuda:0` and `cuda:1`.
pub(super) fn split(names: &str) -> Result<Vec<String>, DeviceError> {
    let wrong = |detail: String| {
        Err(DeviceError::Several {
            names: names.into(),
            detail,
        })
    };
    let Some((first, rest)) = names.split_once(',') else {
        return Ok(vec![names.into()]);
    };
    let first = alike(first.trim());
    let backend = first.split(':').next().unwrap_or_default();
    let is_cpu = is_cpu(backend);
    let mut singles = vec![first.clone()];
    for part in rest.split(',').map(str::trim) {
        let single = match part.parse::<usize>() {
            Ok(index) => format!("{backend}:{index}"),
            Err(_) => alike(part),
        };
        if single.split(':').next() != Some(backend) {
            return wrong(format!(
                "`{part}` is of another backend than `{first}`; take devices of one"
            ));
        }
        if singles.contains(&single) && !is_cpu {
            return wrong(format!("`{single}` is named twice"));
        }
        singles.push(single);
    }
    match singles.iter().find(|single| !single.contains(':')) {
        Some(single) if !is_cpu => wrong(format!(
            "`{single}` has no index; say which, as in `{backend}:0,1`"
        )),
        _ => Ok(singles),
    }
}

/// `cuda:01` as `cuda:1`, so that one device has one name.
fn alike(name: &str) -> String {
    let (backend, index) = name.split_once(':').unwrap_or((name, ""));
    match index.parse::<usize>() {
        Ok(index) => format!("{backend}:{index}"),
        Err(_) => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(names: &str) -> String {
        split(names).unwrap_err().to_string()
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(split("cuda").unwrap(), ["cuda"]);
        assert_eq!(split("cuda:1").unwrap(), ["cuda:1"]);
        assert_eq!(split("cuda:2,0").unwrap(), ["cuda:2", "cuda:0"]);
        assert_eq!(
            split("wgpu:0,wgpu:1,3").unwrap(),
            ["wgpu:0", "wgpu:1", "wgpu:3"]
        );
        assert_eq!(split("cuda:00, 1").unwrap(), ["cuda:0", "cuda:1"]);
        assert_eq!(split("flex,flex").unwrap(), ["flex", "flex"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        insta::assert_snapshot!(said("cuda:0,wgpu:1"), @"devices `cuda:0,wgpu:1`: `wgpu:1` is of another backend than `cuda:0`; take devices of one");
        insta::assert_snapshot!(said("cuda:1,1"), @"devices `cuda:1,1`: `cuda:1` is named twice");
        insta::assert_snapshot!(said("cuda:0,cuda:00"), @"devices `cuda:0,cuda:00`: `cuda:0` is named twice");
        insta::assert_snapshot!(said("cuda,1"), @"devices `cuda,1`: `cuda` has no index; say which, as in `cuda:0,1`");
        insta::assert_snapshot!(said("cuda:0,"), @"devices `cuda:0,`: `` is of another backend than `cuda:0`; take devices of one");
        insta::assert_snapshot!(parse_devices("flex,1").unwrap_err().to_string(), @"device `flex:1`: `flex` is a CPU device and takes no index");
        insta::assert_snapshot!(parse_device("flex,flex").unwrap_err().to_string(), @"device `flex,flex`: one device is taken here; several are for training");
    }

    #[test]
    fn the_cpu_may_be_several() {
        let devices = parse_devices("flex,flex").unwrap();
        assert_eq!(devices, [Device::flex(), Device::flex()]);
        assert_eq!(open_devices("flex").unwrap().len(), 1);
    }
}
