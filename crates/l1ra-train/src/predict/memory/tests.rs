//! Every phase against sums by hand, and which of them is the peak.

use l1ra_core::{L1raConfig, config::Policy};
use l1ra_models::weights::{Storage, StoredType};

use super::*;
use crate::predict::made::{batch, rank_4, tiny_llama, workload};

/// Numbers in matrices: embedding and head, then q, k, v, o, gate, up, down of two layers.
const MATRICES: u64 = 2 * 256 * 64 + 2 * (2 * 4096 + 2 * 2048 + 3 * 8192);
/// Numbers in norms.
const NORMS: u64 = 5 * 64;
/// Bytes of adapters of rank 4 on every layer.
const ADAPTERS: u64 = 4 * 4 * 2 * (129 + 97 + 97 + 129 + 3 * 193);
/// Bytes of ids and of the mask of [`batch`].
const SHARED: u64 = 8 * 16 + 4 * 8 * 8;

/// On a GPU nothing is added for the process and its allocator.
fn on_gpu() -> Workload {
    Workload {
        home: Home::Gpu,
        ..workload("all-linear")
    }
}

fn from_files(bytes: u64) -> Workload {
    Workload {
        source: WeightsFrom::Files {
            bytes,
            stored: StoredType::F32,
        },
        ..workload("all-linear")
    }
}

fn parts(prediction: &MemoryPrediction) -> u64 {
    let MemoryPrediction {
        weights,
        adapters,
        optimizer,
        gradients,
        activations,
        logits,
        other,
        ..
    } = prediction;
    weights + adapters + optimizer + gradients + activations + logits + other
}

#[test]
fn weights_by_what_they_are_stored_in() {
    let weights = |storage| {
        let workload = Workload {
            storage,
            ..on_gpu()
        };
        Base::of(&workload).weights
    };
    assert_eq!(weights(Storage::F32), 4 * (MATRICES + NORMS));
    assert_eq!(weights(Storage::AsStored), 4 * (MATRICES + NORMS));
    // Norms stay in f32.
    assert_eq!(weights(Storage::BF16), 2 * MATRICES + 4 * NORMS);
    assert_eq!(weights(Storage::F16), weights(Storage::BF16));
}

#[test]
fn training_is_the_sum_of_its_parts() {
    let workload = on_gpu();
    let training = Base::of(&workload).training(&batch());
    let layer = 16 * (64 + 128 + 64 + 64 + 256);
    let kept = 2 * layer + 16 * 66; // numbers; the last is the final norm
    assert_eq!(training.adapters, ADAPTERS);
    assert_eq!(training.optimizer, 2 * ADAPTERS);
    assert_eq!(training.gradients, 0);
    assert_eq!(training.logits, 10_240 + 2 * 2_560);
    // The last layer's backward, which comes after the head's, needs more.
    let layer = 4 * (2 * 16 * 64 + 6 * 16 * 128);
    let more = layer - training.logits;
    assert_eq!(training.activations, 4 * kept + SHARED + more);
    assert_eq!(training.other, 2 * GRAPH_LAYER);
    assert_eq!(training.peak_bytes, parts(&training));
    assert_eq!(training.needed_bytes, training.peak_bytes);
    assert_eq!(training.phase, Phase::Training);
}

#[test]
fn packed_rows_have_a_mask_each() {
    let workload = Workload {
        packed: true,
        eval: vec![batch()],
        ..on_gpu()
    };
    let (packed, plain) = (Base::of(&workload), on_gpu());
    let plain = Base::of(&plain);
    let mask = 4 * 8 * 8;
    let more = |rows| {
        let batch = MicroBatch::full(rows, 8, 10);
        packed.training(&batch).activations - plain.training(&batch).activations
    };
    assert_eq!(more(2), mask);
    assert_eq!(more(5), 4 * mask);
    assert_eq!(more(1), 0);
    // Rows of an evaluation are not packed.
    assert_eq!(packed.evaluation(&batch()), plain.evaluation(&batch()));
}

#[test]
fn without_targets_the_last_layer_is_the_peak() {
    let workload = on_gpu();
    let base = Base::of(&workload);
    let without = base.training(&MicroBatch::full(2, 8, 0));
    let with = base.training(&batch());
    assert_eq!(without.logits, 0);
    assert_eq!(without.activations, with.activations + with.logits);
}

#[test]
fn gradients_wait_where_steps_are_accumulated() {
    let workload = Workload {
        accumulation: 2,
        ..on_gpu()
    };
    let training = Base::of(&workload).training(&batch());
    assert_eq!(training.gradients, ADAPTERS);
    assert_eq!(training.peak_bytes, parts(&training));
}

#[test]
fn devices_of_one_cpu_share_its_memory() {
    let on = |devices: usize, home: Home| {
        let workload = Workload {
            accumulation: 2,
            devices,
            home,
            ..on_gpu()
        };
        Base::of(&workload).training(&batch())
    };
    let (one, two) = (on(1, Home::Flex), on(2, Home::Flex));
    assert_eq!(two.activations, 2 * one.activations);
    assert_eq!(two.logits, 2 * one.logits);
    assert_eq!(two.gradients, 2 * one.gradients);
    assert_eq!(two.weights, one.weights);
    // GPUs have their own.
    assert_eq!(on(2, Home::Gpu), on(1, Home::Gpu));
}

#[test]
fn evaluation_keeps_one_layer_and_no_optimizer_step() {
    let workload = on_gpu();
    let evaluation = Base::of(&workload).evaluation(&batch());
    let (logits, working) = (10_240 + 2_560, 4 * (3 * 1024 + 3 * 2048));
    assert_eq!(evaluation.logits, logits);
    assert_eq!(evaluation.activations, SHARED + working - logits);
    assert_eq!(evaluation.other, 0);
    assert_eq!(evaluation.peak_bytes, parts(&evaluation));
}

#[test]
fn a_rank_update_copies_the_adapters() {
    let workload = on_gpu();
    let update = Base::of(&workload).rank_update();
    assert_eq!(update.other, 3 * ADAPTERS);
    assert_eq!([update.activations, update.logits], [0, 0]);
    assert_eq!(update.peak_bytes, parts(&update));
}

#[test]
fn mapped_files_count_while_loading_but_need_not_fit() {
    let loading = Base::of(&from_files(1000)).loading();
    assert_eq!(loading.peak_bytes - loading.needed_bytes, 1000);
    assert_eq!([loading.adapters, loading.optimizer], [0, 0]);
    let workload = Workload {
        home: Home::Gpu,
        ..from_files(1000)
    };
    let loading = Base::of(&workload).loading();
    assert_eq!(loading.peak_bytes, loading.weights);
}

#[test]
fn a_process_holds_more_than_tensors() {
    let on_cpu = workload("all-linear");
    let training = Base::of(&on_cpu).training(&batch());
    let asked = parts(&training) - training.other + 2 * GRAPH_LAYER;
    let process = PROCESS + TOKENIZER + 256 * TOKENIZER_TOKEN;
    assert_eq!(
        training.other,
        2 * GRAPH_LAYER + process + asked / ALLOCATOR_DIVISOR
    );
    assert_eq!(training.peak_bytes, parts(&training));
}

#[test]
fn the_peak_is_the_largest_phase() {
    let phase = |workload: &Workload| predict_memory(workload).phase;
    assert_eq!(phase(&on_gpu()), Phase::Training);
    let evaluated = Workload {
        eval: vec![MicroBatch::full(8, 512, 4096)],
        ..on_gpu()
    };
    assert_eq!(phase(&evaluated), Phase::Evaluation);
    let idle = Workload {
        train: Vec::new(),
        ..on_gpu()
    };
    assert_eq!(phase(&idle), Phase::RankUpdate);
}

#[test]
#[cfg(unix)]
fn pages_are_given_back_tensor_by_tensor() {
    let loading = Base::of(&from_files(1 << 30)).loading();
    let largest = 4 * 256 * 64; // the embedding
    assert_eq!(loading.peak_bytes - loading.needed_bytes, largest);
}

#[test]
fn the_largest_micro_batch_decides() {
    let long = MicroBatch::full(2, 16, 20);
    let workload = Workload {
        train: vec![batch(), long, batch()],
        ..on_gpu()
    };
    assert_eq!(predict_memory(&workload).batch, long);
}

#[test]
fn ranks_that_cannot_move_do_not_grow() {
    let growth = |options: L1raConfig| {
        let workload = Workload::new(tiny_llama(), &options, vec![batch()]).unwrap();
        predict_memory(&workload).growth
    };
    let fixed = L1raConfig {
        policy: Policy::Fixed,
        ..rank_4("all-linear")
    };
    assert_eq!(growth(fixed), 0);
    // 14 adapters keep a rank; the other 42 may all sit in the MLP, where one costs 193.
    let most = ADAPTERS / 4 / 4 + 42 * 193;
    assert_eq!(growth(rank_4("all-linear")), 3 * 4 * (most - ADAPTERS / 4));
}

#[test]
fn it_is_said_line_by_line() {
    insta::assert_snapshot!(predict_memory(&on_gpu()), @"
    peak memory 792 kB in training, 2 × 8 tokens, 10 targets
      weights       427 kB
      adapters       33 kB
      optimizer      66 kB
      activations   120 kB
      logits         15 kB
      other         130 kB
      up to 23 kB more if ranks move to the widest layers
      memory of the GPU; checked on flex only, not on a GPU
    ");
}
