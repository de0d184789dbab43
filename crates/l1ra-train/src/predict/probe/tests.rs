use super::*;
use crate::predict::{
    made::{rank_4, tiny_llama, workload},
    predict_time,
    workload::MicroBatch,
};

/// That every part can be run; how long it takes is not looked at.
#[test]
fn every_part_of_a_tiny_model_is_measured() {
    let workload = workload("all-linear");
    let mut probe = Probe::new(&workload, &Device::flex());
    let block = |kind| Part::Block {
        kind,
        rows: 2,
        length: 8,
    };
    let parts = [
        block(BlockKind::Adapted),
        block(BlockKind::Passed),
        block(BlockKind::Frozen),
        Part::Head {
            rows: 2,
            length: 8,
            targets: 10,
            vocabulary: 256,
        },
        Part::Embedding { rows: 2, length: 8 },
        Part::Optimizer,
    ];
    for part in parts {
        let seconds = probe.seconds(part).unwrap();
        assert!(seconds.is_finite() && seconds >= 0.0, "{part:?}: {seconds}");
    }
}

#[test]
fn a_step_of_a_tiny_model_is_predicted() {
    let prediction = predict_time(&workload("all-linear"), &Device::flex()).unwrap();
    let names: Vec<&str> = prediction.how.parts.iter().map(|part| part.name).collect();
    assert_eq!(
        names,
        [
            "block with adapters",
            "output head and loss",
            "embedding and positions",
            "optimizer, one block's adapters"
        ]
    );
    assert!(prediction.step_seconds.is_finite());
}

#[test]
fn one_block_stands_for_the_adapted_ones() {
    let batch = vec![MicroBatch::full(1, 8, 4)];
    let mut options = rank_4("all-linear");
    options.rank_pattern = [("layers.1.self_attn.q_proj".to_string(), 9)].into();
    let workload = Workload::new(tiny_llama(), &options, batch).unwrap();
    let probe = Probe::new(&workload, &Device::flex());
    let rank = |name: &str| probe.mean_rank(&format!("model.layers.0.{name}"));
    assert_eq!(rank("self_attn.q_proj"), 7); // (4 + 9) / 2, rounded
    assert_eq!(rank("mlp.up_proj"), 4);
    assert_eq!(probe.mean_rank("lm_head"), 0);
}
