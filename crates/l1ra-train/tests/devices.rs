//! Every device of this build does what `flex` does: gradients, losses of a run, decisions about ranks.
//! `cargo test -p l1ra-train --features wgpu,ndarray --test devices` on a GPU, or on a Vulkan driver
//! in software.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod one_step;
mod tiny;

use burn::tensor::Device;
use l1ra_core::{L1raConfig, device::compiled_devices, parse_device};
use l1ra_train::{FineTune, TrainOptions, checkpoint::CheckpointOptions, finetune, run::RunInput};
use rstest::rstest;
use tempfile::TempDir;

/// The devices of this build but `flex`.
fn others() -> Vec<(&'static str, Device)> {
    let names = compiled_devices()
        .into_iter()
        .filter(|name| *name != "flex");
    names
        .map(|name| (name, parse_device(name).unwrap()))
        .collect()
}

#[rstest]
fn gradients_are_those_of_flex(
    #[values("tiny-llama", "tiny-mistral")] name: &str,
    #[values(false, true)] packed: bool,
    #[values(false, true)] recompute: bool,
) {
    let on = |device: &Device| {
        let device = device.clone().autodiff();
        let mut model = FineTune::new(one_step::model(name, "all-linear", 0.0, &device), None);
        if recompute {
            model = model.with_block_recompute();
        }
        one_step::step(&model, one_step::batch(packed, &device))
    };
    let (loss, gradients) = on(&Device::flex());
    for (device, place) in others() {
        let (seen_loss, seen) = on(&place);
        let off = (seen_loss - loss).abs() / loss;
        assert!(off < 1e-5, "{device}: loss {seen_loss}, on flex {loss}");
        let mut largest = 0.0_f32;
        for ((path, exact), (seen_path, seen)) in gradients.iter().zip(&seen) {
            assert_eq!(path, seen_path);
            let scale = exact.iter().fold(1e-9_f32, |m, v| m.max(v.abs()));
            for (seen, exact) in seen.iter().zip(exact) {
                largest = largest.max((seen - exact).abs() / scale);
            }
        }
        println!("{name} on {device}: loss off by {off:.1e}, gradients by {largest:.1e}");
        assert!(largest < 1e-4, "{device}: gradients off by {largest}");
    }
}

#[test]
fn runs_are_those_of_flex() {
    let options = TrainOptions {
        adapters: L1raConfig {
            rank: 3,
            lambda: 1.0,
            eta_c: 0.2,
            update_ratio: 0.2,
            ..Default::default()
        },
        steps: 20,
        batch_size: 2,
        accumulation: 2,
        lr: 1e-2,
        warmup_steps: 2,
        eval_every: 5,
        checkpoint: CheckpointOptions {
            save_every: Some(0),
            ..Default::default()
        },
        ..Default::default()
    };
    let on = |device: &Device| {
        let dir = TempDir::new().unwrap();
        let input = RunInput::new(
            tiny::model_on(device),
            "tiny-llama",
            tiny::samples(24),
            tiny::samples(6),
            device,
            dir.path(),
        );
        finetune(&options, input, Vec::new()).unwrap().1
    };
    let exact = on(&Device::flex());
    assert!(exact.ranks.moved() > 0);
    for (name, device) in others() {
        let seen = on(&device);
        let off = |seen: f64, exact: f64| (seen - exact).abs();
        let losses = seen.losses.iter().zip(&exact.losses);
        let largest = losses
            .map(|(seen, exact)| off(*seen, *exact))
            .fold(0.0, f64::max);
        let after = off(seen.after.loss, exact.after.loss);
        println!(
            "{name}: {} ranks moved, losses off by {largest:.1e}, after training by {after:.1e}",
            seen.ranks.moved()
        );
        assert!(largest < 1e-4 && after < 1e-4, "{name}");
        let ranks = |report: &l1ra_train::run::RunReport| {
            let updates = report.updates.iter();
            updates
                .map(|update| (update.step, update.plan.ranks()))
                .collect::<Vec<_>>()
        };
        assert_eq!(ranks(&seen), ranks(&exact), "{name}");
    }
}
