//! What the kernels for rows take on a GPU, beside the same put together from Burn's operations.
//!
//! `cargo run --release -p l1ra-ops --features wgpu,fusion,autotune --example rows -- wgpu`
//!
//! Sizes are those of a step of SmolLM2-135M with 4 × 512 tokens.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::type_complexity,
    missing_docs
)]

use std::{any::Any, env::args, time::Instant};

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use l1ra_core::open_device;
use l1ra_ops::rows;

/// Calls between two waits, as many as there are in a few blocks of a model.
const CALLS: usize = 8;

/// The best of some runs of [`CALLS`], in milliseconds each, after two that compile and tune. Results are kept
/// until the device is done: Burn's fusion leaves out what nobody holds.
fn time(device: &Device, act: &dyn Fn() -> Kept) -> f64 {
    let once = || {
        let began = Instant::now();
        let kept: Vec<Kept> = (0..CALLS).map(|_| act()).collect();
        device.sync().unwrap();
        drop(kept);
        1e3 * began.elapsed().as_secs_f64() / CALLS as f64
    };
    for _ in 0..2 {
        once();
    }
    (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// What an operation gave.
type Kept = Box<dyn Any>;

fn drawn<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n)
        .map(|i| (i * 7919 % 1009) as f32 / 250.0 - 2.0)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn main() {
    let name = args().nth(1).unwrap_or_else(|| "flex".to_string());
    let device = open_device(&name).unwrap();
    let line = |what: &str, act: &dyn Fn(bool) -> Kept| {
        let [ours, composed] = [true, false].map(|ours| time(&device, &|| act(ours)));
        println!(
            "| {what} | {composed:.2} | {ours:.2} | {:.2} |",
            composed / ours
        );
    };
    println!("| {name}, milliseconds | of Burn's operations | one kernel | |");
    println!("|---|---|---|---|");

    let (n, d, wide) = (2048, 576, 1536);
    let (x, dy, weight) = (
        drawn([n, d], &device),
        drawn([n, d], &device),
        drawn([d], &device),
    );
    line("norm", &|ours| {
        Box::new(rows::rms_norm(of(&x, ours), &weight, 1e-5))
    });
    line("norm, gradient", &|ours| {
        Box::new(rows::rms_norm_backward(
            of(&dy, ours),
            of(&x, ours),
            &weight,
            1e-5,
        ))
    });
    let (gate_up, dy) = (drawn([n, 2 * wide], &device), drawn([n, wide], &device));
    line("gate", &|ours| {
        Box::new(rows::swiglu(of(&gate_up, ours), FloatDType::F32))
    });
    line("gate, gradient", &|ours| {
        Box::new(rows::swiglu_backward(of(&dy, ours), &of(&gate_up, ours)))
    });
    drop((x, gate_up, dy));

    let (batch, heads, kv_heads, length) = (4, 9, 3, 512);
    let shape = [batch, kv_heads, heads / kv_heads * length, length];
    let hidden = |i: usize| match i % length > i / length {
        true => f32::NEG_INFINITY,
        false => 0.0,
    };
    let mask: Vec<f32> = (0..length * length).map(hidden).collect();
    let mask = TensorData::new(mask, [1, 1, length, length]);
    let mask = Tensor::<4>::from_data(mask, &device);
    let scores = drawn(shape, &device);
    line("softmax", &|ours| {
        Box::new(rows::masked_softmax(
            of(&scores, ours),
            Some(&of(&mask, ours)),
        ))
    });
    line("softmax, gradient", &|ours| {
        Box::new(rows::softmax_backward(of(&scores, ours), of(&scores, ours)))
    });
    drop(scores);

    let (n, vocabulary) = (512, 49_152);
    let logits = drawn([n, vocabulary], &device);
    let targets: Vec<i64> = (0..n as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), &device);
    line("loss with its gradient", &|ours| {
        let targets = match ours {
            true => targets.clone(),
            false => Tensor::from_inner(targets.clone()),
        };
        Box::new(rows::cross_entropy(of(&logits, ours), targets, true))
    });
}

/// `x` as it is, or in a graph where no kernel of ours takes it.
fn of<const D: usize>(x: &Tensor<D>, ours: bool) -> Tensor<D> {
    match ours {
        true => x.clone(),
        false => Tensor::from_inner(x.clone()),
    }
}
