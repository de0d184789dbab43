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
    let attention = 16 * (64 + 12) + 16 * (128 + 64 + 4) + 16 * 4;
    // Gate and up's input and h; both before silu; down's h.
    let mlp = 16 * (64 + 8) + 16 * (256 + 4);
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
    assert_eq!([first.attention, first.mlp], [0, 16 * (256 + 4)]);
    let passed = 16 * 64 + 16 * (128 + 64 + 4);
    assert_eq!([second.attention, second.mlp], [passed, 16 * (64 + 256)]);
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
    let o = 16 * 64 + 2 * 16 * 64 + 16 * 4;
    assert_eq!(first.attention, 3 * 16 * 64 + 16 * 12 + graph + o);
    assert_eq!(
        second.attention,
        first.attention + 3 * 16 * 64 + 2 * 16 * 64
    );
}

#[test]
fn every_layer_adapted() {
    // q, k, v on one input; queries, keys, values; o.
    let attention = (1024 + 192) + (1024 + 2 * 512) + (1024 + 64);
    // Norm; gate and up on one input; gate and up; down.
    let mlp = 1056 + (1024 + 128) + 2 * 2048 + (2048 + 64);
    let first = LayerKept {
        attention,
        mlp,
        tracked: true,
    };
    // Only from the first adapter on does a norm's input need a gradient.
    let second = LayerKept {
        attention: attention + 1056,
        ..first
    };
    assert_eq!(kept("all-linear"), [first, second]);
    assert_eq!(first.total(), 4352 + 8_416);
}

#[test]
fn queries_and_values_alone() {
    let attention = (1024 + 128) + (1024 + 2 * 512);
    let mlp = 1056 + 2 * 2048;
    let [first, second] = kept(".*(q|v)_proj")[..] else {
        panic!("two layers");
    };
    assert_eq!([first.attention, first.mlp], [attention, mlp]);
    assert_eq!([second.attention, second.mlp], [attention + 1056, mlp]);
}

#[test]
fn layers_below_every_adapter_keep_nothing() {
    let [first, second] = kept(r".*\.1\..*")[..] else {
        panic!("two layers");
    };
    assert_eq!(first, LayerKept::default());
    assert_eq!(second.attention, 4352);
    assert!(second.tracked);
}

#[test]
fn layers_above_pass_the_gradient_through() {
    let [first, second] = kept(r".*\.0\..*")[..] else {
        panic!("two layers");
    };
    assert_eq!(first.total(), 4352 + 8_416);
    // No inputs of adapters, everything else.
    assert_eq!(second.attention, 1056 + 2048);
    assert_eq!(second.mlp, 1056 + 2 * 2048);
}

#[test]
fn dropout_keeps_an_input_and_a_mask_for_each_adapter() {
    let of = |ranks: &[u64], tracked, dropout| adapters(ranks, 1024, 16, tracked, dropout);
    assert_eq!(of(&[4, 0, 4], true, false), 1024 + 16 * 8);
    assert_eq!(of(&[4, 0, 4], true, true), 2 * 2 * 1024 + 16 * 8);
    assert_eq!(of(&[4, 0, 4], false, true), 2 * 1024 + 16 * 8);
    assert_eq!(of(&[0, 0], true, true), 0);
}
