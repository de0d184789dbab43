//! Sums over layers, added up by hand: 16 tokens.

use super::*;
use crate::predict::made::{batch, workload};

/// By Burn's own operations.
fn kept(targets: &str) -> Vec<LayerKept> {
    let workload = Workload {
        home: Home::OtherCpu,
        ..workload(targets)
    };
    layers(&workload, &batch())
}

/// By the operations of `flex`.
fn kept_on_flex(targets: &str) -> Vec<LayerKept> {
    layers(&workload(targets), &batch())
}

#[test]
fn operations_keep_inputs_and_little_else() {
    // q, k, v's input and h; queries, keys, values, output, a number a head; o's h.
    let attention = 4 * (16 * (64 + 12) + 16 * (128 + 64 + 4) + 16 * 4);
    // Gate and up's input and h; both before silu; down's h.
    let mlp = 4 * (16 * (64 + 8) + 16 * (256 + 4));
    let layer = LayerKept {
        attention,
        mlp,
        tracked: true,
    };
    assert_eq!(kept_on_flex("all-linear"), [layer; 2]);
    let [first, second] = kept_on_flex(r".*\.0\.mlp\.down_proj")[..] else {
        panic!("two layers");
    };
    // down alone keeps the gate's input; above it, everything but h is kept.
    assert_eq!([first.attention, first.mlp], [0, 4 * 16 * (256 + 4)]);
    let passed = 4 * (16 * 64 + 16 * (128 + 64 + 4));
    assert_eq!(
        [second.attention, second.mlp],
        [passed, 4 * 16 * (64 + 256)]
    );
}

#[test]
fn activations_in_two_bytes() {
    let mut workload = workload("all-linear");
    workload.storage = l1ra_models::weights::Storage::BF16;
    // The residual stream before its norm, h and the number a head stay f32.
    let attention = 16 * (4 * (64 + 12) + 2 * (128 + 64) + 4 * 4 + 4 * 4);
    let mlp = 16 * (4 * (64 + 8) + 2 * 256 + 4 * 4);
    let layer = LayerKept {
        attention,
        mlp,
        tracked: true,
    };
    assert_eq!(layers(&workload, &batch()), [layer; 2]);
    workload.activations = crate::activations::Activations::F32;
    assert_eq!(layers(&workload, &batch()), kept_on_flex("all-linear"));
}

#[test]
fn dropout_takes_operations_apart() {
    let mut dropped = workload("all-linear");
    dropped.options.dropout = 0.1;
    let [first, second] = layers(&dropped, &batch())[..] else {
        panic!("two layers");
    };
    // Three adapters' inputs; with a graph before them their masks, the norm's and the layers' inputs.
    let graph = 16 * (128 + 64 + 4);
    let o = 2 * 16 * 64 + 16 * 4;
    assert_eq!(first.attention, 4 * (3 * 16 * 64 + 16 * 12 + graph + o));
    assert_eq!(
        second.attention,
        first.attention + 4 * (3 * 16 * 64 + 2 * 16 * 64)
    );
}

#[test]
fn without_kernels_no_h_is_kept() {
    // q, k, v's input; queries, keys, values; o's input. Gate and up's input; both before silu.
    let layer = LayerKept {
        attention: 4 * 16 * (64 + 128 + 64),
        mlp: 4 * 16 * (64 + 256),
        tracked: true,
    };
    assert_eq!(kept("all-linear"), [layer; 2]);
}

#[test]
fn queries_and_values_alone() {
    assert_eq!(kept(".*(q|v)_proj"), kept("all-linear"));
}

#[test]
fn layers_below_every_adapter_keep_nothing() {
    let [first, second] = kept(r".*\.1\..*")[..] else {
        panic!("two layers");
    };
    assert_eq!(first, LayerKept::default());
    assert_eq!(second, kept("all-linear")[1]);
}

#[test]
fn dropout_keeps_an_input_and_a_mask_for_each_adapter() {
    let of = |ranks: &[u64], tracked, dropout| adapters(ranks, 1024, 16, tracked, dropout);
    assert_eq!(of(&[4, 0, 4], true, false), 1024 + 16 * 8);
    assert_eq!(of(&[4, 0, 4], true, true), 2 * 2 * 1024 + 16 * 8);
    assert_eq!(of(&[4, 0, 4], false, true), 2 * 1024 + 16 * 8);
    assert_eq!(of(&[0, 0], true, true), 0);
}
