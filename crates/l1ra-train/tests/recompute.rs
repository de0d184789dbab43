//! Blocks run again in the backward give the step of a whole graph.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod one_step;

use burn::{tensor::Device, train::TrainStep};
use l1ra_train::{
    FineTune,
    data::{Origin, TokenBatch},
    model::Reduction,
};
use one_step::{batch, model, step};
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
    let lm = model("tiny-llama", "all-linear", 0.3, &device);
    let numbered = |number| {
        let samples = Vec::new();
        batch(false, &device).with_origin(Origin { number, samples })
    };
    for recompute in [false, true] {
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
