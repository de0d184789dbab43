//! 10 targets, a vocabulary of 256, hidden 64: logits take 10,240 bytes, picked states 2,560.

use super::*;
use crate::predict::made::{batch, workload};

const LOGITS: u64 = 10_240;
const PICKED: u64 = 2_560;

fn stored(storage: Storage, home: Home) -> [u64; 2] {
    let workload = Workload {
        storage,
        home,
        ..workload("all-linear")
    };
    [forward(&workload, &batch()), backward(&workload, &batch())]
}

#[test]
fn two_copies_forward_and_three_backward() {
    let plain = [2 * LOGITS + PICKED, 3 * LOGITS + 2 * PICKED];
    assert_eq!(stored(Storage::F32, Home::OtherCpu), plain);
    assert_eq!(stored(Storage::F16, Home::OtherCpu), plain);
}

#[test]
fn one_copy_in_the_type_of_products_on_a_gpu() {
    let of = |logits| [logits + PICKED, logits + 2 * PICKED];
    assert_eq!(stored(Storage::F32, Home::Gpu), of(LOGITS));
    assert_eq!(stored(Storage::BF16, Home::Gpu), of(LOGITS / 2));
}

#[test]
fn a_bf16_head_is_converted_on_the_cpu() {
    let converted = 2 * LOGITS + 6 * 256 * 64;
    assert_eq!(
        stored(Storage::BF16, Home::OtherCpu),
        [converted + PICKED, converted + 2 * PICKED]
    );
}

#[test]
fn an_adapter_on_the_head_keeps_its_input() {
    let adapted = workload("lm_head");
    let kept = PICKED + F32 * 10 * 4;
    assert_eq!(backward(&adapted, &batch()), 3 * LOGITS + PICKED + kept);
    assert_eq!(forward(&adapted, &batch()), 2 * LOGITS + PICKED);
}

#[test]
fn a_frozen_head_makes_a_part_of_the_logits() {
    let few = [LOGITS + PICKED, LOGITS + 2 * PICKED];
    assert_eq!(stored(Storage::F32, Home::Flex), few);
    assert_eq!(stored(Storage::BF16, Home::Flex), few);
    let many = MicroBatch::full(16, 256, 4080);
    let chunk = F32 * CHUNK as u64 * 256;
    let part = F32 * PART_ROWS as u64 * 256;
    let picked = F32 * 4080 * 64;
    assert_eq!(forward(&workload("all-linear"), &many), part + picked);
    let elsewhere = Workload {
        home: Home::OtherCpu,
        ..workload("all-linear")
    };
    assert_eq!(forward(&elsewhere, &many), 2 * chunk + picked);
    assert_eq!(backward(&elsewhere, &many), 3 * chunk + 2 * picked);
    let gpu = Workload {
        home: Home::Gpu,
        ..elsewhere
    };
    assert_eq!(forward(&gpu, &many), chunk + picked);
    assert_eq!(backward(&gpu, &many), chunk + 2 * picked);
}

#[test]
fn no_targets_no_logits() {
    let none = MicroBatch::full(2, 8, 0);
    assert_eq!(backward(&workload("all-linear"), &none), 0);
    assert_eq!(forward(&workload("all-linear"), &none), 0);
}
