//! The device.

use insta::assert_snapshot;

use crate::{eval, support::Place, train, train_anew};

#[test]
fn a_device_that_is_unknown() {
    assert_snapshot!(train_anew(&["--device", "gpu"]), @"error: --device gpu: device `gpu` is unknown; known: flex, ndarray, wgpu[:i], vulkan[:i], metal[:i], cuda[:i], rocm[:i]");
    let place = Place::new();
    place.change_recipe("output = \"out\"", "output = \"out\"\ndevice = \"cpu\"");
    assert_snapshot!(train(&place, &[]), @"error: recipe.toml, line 2: device `cpu` is unknown; known: flex, ndarray, wgpu[:i], vulkan[:i], metal[:i], cuda[:i], rocm[:i]");
}

#[test]
fn a_device_with_an_index_that_is_none() {
    assert_snapshot!(train_anew(&["--device", "cuda:one"]), @"error: --device cuda:one: device `cuda:one`: the part after `:` is a device index, a number from 0");
    assert_snapshot!(train_anew(&["--device", "flex:1"]), @"error: --device flex:1: device `flex:1`: `flex` is a CPU device and takes no index");
}

#[test]
fn several_devices_that_cannot_be() {
    assert_snapshot!(train_anew(&["--device", "cuda:0,wgpu:0"]), @"error: --device cuda:0,wgpu:0: devices `cuda:0,wgpu:0`: `wgpu:0` is of another backend than `cuda:0`; take devices of one");
    assert_snapshot!(train_anew(&["--device", "wgpu:1,1"]), @"error: --device wgpu:1,1: devices `wgpu:1,1`: `wgpu:1` is named twice");
    assert_snapshot!(train_anew(&["--device", "flex,flex"]), @"error: recipe.toml, line 17: train.accumulation = 1: at least 2, as the micro-batches of a window are dealt out to the 2 devices; with a smaller batch_size, the window stays what it is");
    assert_snapshot!(eval(&Place::new(), &["--data", "good.jsonl", "--device", "flex,flex"]), @"error: device `flex,flex`: one device is taken here; several are for training");
}

/// What else is compiled in depends on what is built along with it.
#[test]
fn a_device_that_was_not_compiled_in() {
    if !cfg!(feature = "rocm") {
        let said = train_anew(&["--device", "rocm"]);
        assert!(said.contains("--device rocm"), "{said}");
        assert!(
            said.contains("`--features rocm`") && said.contains("flex"),
            "{said}"
        );
    }
}

#[test]
fn a_device_of_another_command() {
    assert_snapshot!(eval(&Place::new(), &["--data", "good.jsonl", "--device", "tpu"]), @"error: device `tpu` is unknown; known: flex, ndarray, wgpu[:i], vulkan[:i], metal[:i], cuda[:i], rocm[:i]");
}
