//! Proves that a copy follows the module that it is of, and that one that does not is found.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use burn::module::Module;
use common::{SMALL, Small, bits, devices, flex, values};
use l1ra_core::{
    Init, RankPlan,
    allocation::{RankChange, surgery},
    init::SeededNoise,
    replica::{check_replica, follow},
    walk,
};

const RANKS: [usize; 3] = [3, 2, 4];

/// The first adapter loses a rank, and the last one gets it.
fn moved(module: Small) -> Small {
    let changes = SMALL.iter().zip(RANKS).enumerate();
    let changes = changes.map(|(index, ((path, _), before))| RankChange {
        path: (*path).into(),
        before,
        pruned: if index == 0 { vec![1] } else { Vec::new() },
        added: usize::from(index == 2),
    });
    let plan = RankPlan {
        min_values: vec![0.0; 3],
        excluded: Vec::new(),
        order: Vec::new(),
        grown: vec![2],
        spare: 0,
        restart_optimizer: false,
        marked: Vec::new(),
        changes: changes.collect(),
    };
    let initial: HashMap<String, usize> = SMALL
        .iter()
        .zip(RANKS)
        .map(|((path, _), rank)| (path.to_string(), rank))
        .collect();
    let mut noise = SeededNoise::new(3);
    surgery::apply_to_module(module, &plan, &initial, &mut noise, Init::Gaussian, 0).unwrap()
}

#[test]
fn a_copy_on_any_device_takes_over_adapters_and_their_ranks() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let (module, _) = Small::trained(5, RANKS, &flex().autodiff());
        let copy = module.clone().fork(&device);
        check_replica(&copy, &module).unwrap();

        let module = moved(module);
        let error = check_replica(&copy, &module).unwrap_err().to_string();
        assert_eq!(
            error, "adapter `layers.0`: has rank 2, and 3 on another device",
            "{name}"
        );
        let copy = follow(copy, &module, &device);
        check_replica(&copy, &module).unwrap();
        for (copy, view) in walk::adapters(&copy).iter().zip(walk::adapters(&module)) {
            assert_eq!(copy.ids, view.ids, "{name}");
            assert_eq!(copy.c.device(), device.clone().inner());
            for (seen, expected) in [(&copy.a, &view.a), (&copy.b, &view.b)] {
                assert_eq!(bits(&values(seen)), bits(&values(expected)), "{name}");
            }
        }
        // What was taken over is still trained, and the base is not.
        let trainable = walk::trainable_parameters(&module);
        assert_eq!(walk::trainable_parameters(&copy), trainable, "{name}");
    }
}

#[test]
fn a_gate_that_differs_is_named() {
    let (module, _) = Small::trained(5, RANKS, &flex().autodiff());
    let (other, _) = Small::trained(6, RANKS, &flex().autodiff());
    let error = check_replica(&other, &module).unwrap_err().to_string();
    assert!(
        error.starts_with("adapter `layers.0`: has a gate ")
            && error.ends_with("on another device"),
        "{error}"
    );
}
