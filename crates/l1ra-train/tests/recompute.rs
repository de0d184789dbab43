//! Blocks run again in the backward give the step of a whole graph.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod one_step;

use burn::{
    tensor::{Device, FloatDType},
    train::TrainStep,
};
use l1ra_models::weights::Storage;
use l1ra_train::{
    FineTune,
    activations::Activations,
    data::{Origin, TokenBatch},
    model::Reduction,
};
use one_step::{batch, model, step, stored};
use rstest::rstest;

#[rstest]
fn a_step_is_the_same_to_rounding(
    #[values("tiny-llama", "tiny-mistral")] name: &str,
    #[values("all-linear", r".*\.1\..*", r".*\.0\..*", ".*q_proj")] targets: &str,
    #[values(false, true)] packed: bool,
    #[values(Reduction::Sum, Reduction::Mean)] reduction: Reduction,
) {
    let device = Device::flex().autodiff();
    let whole = FineTune::new(model(name, targets, 0.0, &device), None).with_reduction(reduction);
    let again = whole.clone().with_block_recompute();
    let (loss, gradients) = step(&whole, batch(packed, &device));
    let (loss_again, gradients_again) = step(&again, batch(packed, &device));
    assert_eq!(loss, loss_again);
    for ((path, seen), (_, exact)) in gradients_again.iter().zip(&gradients) {
        let scale = exact.iter().fold(1e-9_f32, |m, v| m.max(v.abs()));
        assert!(exact.iter().any(|v| *v != 0.0), "{path} has no gradient");
        for (seen, exact) in seen.iter().zip(exact) {
            // The slopes of the residual stream are added in another order: not to the bit.
            assert!(
                (seen - exact).abs() <= 1e-6 * scale,
                "{path}: {seen} {exact}"
            );
        }
    }
}

/// With activations in two bytes, too: what is made again is rounded as it was.
#[rstest]
fn a_step_with_activations_in_bf16(
    #[values("tiny-llama", "tiny-mistral")] name: &str,
    #[values(false, true)] packed: bool,
) {
    let device = Device::flex().autodiff();
    let mut lm = stored(name, "all-linear", 0.0, Storage::BF16, &device);
    let single = FineTune::new(lm.clone(), None);
    Activations::Auto.set(&mut lm);
    assert_eq!(lm.activations(), FloatDType::BF16);
    let whole = FineTune::new(lm, None);
    let again = whole.clone().with_block_recompute();
    let (loss, gradients) = step(&whole, batch(packed, &device));
    let (loss_again, gradients_again) = step(&again, batch(packed, &device));
    assert_eq!(loss, loss_again);
    let near = |seen: &[f32], exact: &[f32], bound: f32| {
        let scale = exact.iter().fold(1e-9_f32, |m, v| m.max(v.abs()));
        let pairs = seen.iter().zip(exact);
        pairs.fold(0.0_f32, |m, (seen, exact)| m.max((seen - exact).abs())) <= bound * scale
    };
    for ((path, seen), (_, exact)) in gradients_again.iter().zip(&gradients) {
        // Slopes of the residual stream are added in another order, and then rounded.
        assert!(near(seen, exact, 1e-2), "{path}: not that of a whole graph");
    }
    let (loss_single, gradients_single) = step(&single, batch(packed, &device));
    assert!(
        (loss - loss_single).abs() < 2e-3 * loss_single,
        "{loss} {loss_single}"
    );
    for ((path, seen), (_, exact)) in gradients.iter().zip(&gradients_single) {
        assert!(near(seen, exact, 0.4), "{path}: far from that in f32");
    }
}

#[test]
fn nothing_to_learn_is_nothing_done() {
    let device = Device::flex().autodiff();
    let model = model("tiny-llama", "all-linear", 0.0, &device);
    let model = FineTune::new(model, None).with_block_recompute();
    let none = TokenBatch {
        rows: None,
        targets: None,
        target_count: 0,
        ..batch(false, &device)
    };
    let output = TrainStep::step(&model, none);
    assert!(output.grads.is_empty());
    assert_eq!(output.item.sum(), 0.0);
}

#[test]
fn dropout_is_that_of_its_seed_and_batch() {
    let device = Device::flex().autodiff();
    let mut in_bf16 = stored("tiny-llama", "all-linear", 0.3, Storage::BF16, &device);
    Activations::Auto.set(&mut in_bf16);
    let in_f32 = model("tiny-llama", "all-linear", 0.3, &device);
    let numbered = |number| {
        let samples = Vec::new();
        batch(false, &device).with_origin(Origin { number, samples })
    };
    let models = [&in_f32, &in_bf16];
    for (lm, recompute) in models.into_iter().flat_map(|lm| [(lm, false), (lm, true)]) {
        let learner = |seed| {
            let learner = FineTune::new(lm.clone(), None).with_seed(seed);
            match recompute {
                true => learner.with_block_recompute(),
                false => learner,
            }
        };
        let (one, two) = (learner(1), learner(1));
        let first = step(&one, numbered(0));
        assert_eq!(first, step(&two, numbered(0)));
        let second = step(&one, numbered(1));
        assert_ne!(first.1, second.1, "a mask of its own in every step");
        assert_eq!(second, step(&two, numbered(1)));
        assert_eq!(first, step(&two, numbered(0)), "whatever came before");
        assert_ne!(first.1, step(&learner(2), numbered(0)).1);
    }
}
