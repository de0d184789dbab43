//! The device.

use insta::assert_snapshot;

use crate::{
    support::{Place, model},
    train, train_anew,
};

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
    let place = Place::new();
    let model = model();
    let args = [
        "eval",
        "--model",
        &model,
        "--data",
        "good.jsonl",
        "--device",
        "tpu",
    ];
    assert_snapshot!(place.mistake(&args), @"error: device `tpu` is unknown; known: flex, ndarray, wgpu[:i], vulkan[:i], metal[:i], cuda[:i], rocm[:i]");
}
