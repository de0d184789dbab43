use super::*;
use crate::predict::made::{llama_8b, rank_4, tiny_llama};

const GB: u64 = 1_000_000_000;

/// Llama-3.1-8B on full rows, activations made again.
fn large(storage: Storage, rows: usize, length: usize) -> Workload {
    let batch = MicroBatch::full(rows, length, rows * length);
    Workload {
        storage,
        recompute: true,
        ..Workload::new(llama_8b(), &rank_4("all-linear"), vec![batch]).unwrap()
    }
}

fn advice(workload: &Workload, available: u64) -> String {
    advise(&predict_memory(workload), available, workload).join("\n")
}

#[test]
fn what_fits_needs_none() {
    let workload = large(Storage::BF16, 8, 1024);
    let needed = predict_memory(&workload).needed_bytes;
    assert_eq!(advice(&workload, needed), "");
    assert_ne!(advice(&workload, needed - 1), "");
}

#[test]
fn fewer_rows_come_first() {
    insta::assert_snapshot!(advice(&large(Storage::BF16, 8, 512), 19 * GB), @"
    batch_size = 4 and accumulation = 2: 18.10 GB
    max_length = 256: 18.06 GB
    ");
}

#[test]
fn a_single_row_can_only_be_shorter() {
    insta::assert_snapshot!(advice(&large(Storage::BF16, 1, 1024), 17 * GB), @"max_length = 512: 16.82 GB");
}

#[test]
fn two_bytes_are_for_a_base_in_four() {
    insta::assert_snapshot!(advice(&large(Storage::F32, 1, 128), 32 * GB), @r#"dtype = "bf16": 16.53 GB"#);
}

#[test]
fn rows_and_their_length_together() {
    insta::assert_snapshot!(advice(&large(Storage::BF16, 16, 1024), 168 * GB / 10), @"batch_size = 1 and accumulation = 16, max_length = 256: 16.66 GB");
}

#[test]
fn rows_are_not_shortened_more_than_one_row_must_be() {
    // 8 rows of 32 tokens would fit as well.
    insta::assert_snapshot!(advice(&large(Storage::BF16, 8, 1024), 168 * GB / 10), @"batch_size = 1 and accumulation = 8, max_length = 256: 16.66 GB");
}

#[test]
fn two_bytes_and_fewer_rows_together() {
    insta::assert_snapshot!(advice(&large(Storage::F32, 4, 512), 172 * GB / 10), @r#"dtype = "bf16", batch_size = 1 and accumulation = 4: 16.86 GB"#);
}

#[test]
fn two_bytes_and_shorter_rows_together() {
    insta::assert_snapshot!(advice(&large(Storage::F32, 1, 1024), 17 * GB), @r#"dtype = "bf16", max_length = 512: 16.82 GB"#);
}

#[test]
fn all_three_together() {
    insta::assert_snapshot!(advice(&large(Storage::F32, 4, 1024), 168 * GB / 10), @r#"dtype = "bf16", batch_size = 1 and accumulation = 4, max_length = 256: 16.66 GB"#);
}

#[test]
fn weights_that_are_too_much_alone() {
    insta::assert_snapshot!(advice(&large(Storage::F32, 4, 512), 12 * GB), @"a smaller model, or a machine with more memory: the frozen weights alone take 16.06 GB even in bf16");
    insta::assert_snapshot!(advice(&large(Storage::BF16, 4, 512), 12 * GB), @"a smaller model, or a machine with more memory: the frozen weights alone take 16.06 GB");
}

#[test]
fn weights_that_leave_too_little() {
    insta::assert_snapshot!(advice(&large(Storage::F32, 4, 512), 16_100_000_000), @r#"a smaller model, or a machine with more memory: even with dtype = "bf16", batch_size = 1 and accumulation = 4, max_length = 32 it needs 16.53 GB"#);
}

#[test]
fn every_change_needs_less() {
    let workload = large(Storage::F32, 6, 700);
    let needed = predict_memory(&workload).needed_bytes;
    for tenth in 3..10 {
        let available = needed / 10 * tenth;
        let one: [&[Step]; 3] = [&[FewerRows], &[ShorterRows], &[TwoBytes]];
        for steps in one.iter().chain(&TOGETHER) {
            let Some(change) = Change::of(steps, &workload, available) else {
                continue;
            };
            let again = predict_memory(&change.workload).needed_bytes;
            assert_eq!(again, change.needed);
            assert!(change.needed < needed);
        }
    }
}

#[test]
fn rows_of_a_step_stay_at_least_what_they_were() {
    let workload = Workload {
        accumulation: 3,
        ..large(Storage::BF16, 6, 64)
    };
    let change = Change::of(&[FewerRows], &workload, 0).unwrap();
    assert_eq!(change.what, ["batch_size = 1 and accumulation = 18"]);
    assert_eq!(change.workload.train, [MicroBatch::full(1, 64, 64)]);
}

#[test]
fn targets_shrink_with_their_rows() {
    let batch = MicroBatch::full(4, 64, 40);
    let workload = Workload::new(tiny_llama(), &rank_4("all-linear"), vec![batch]).unwrap();
    let short = with_length(&workload, 32);
    assert_eq!(short.train, [MicroBatch::full(4, 32, 20)]);
    let few = with_rows(&workload, 1, 4);
    assert_eq!(few.train, [MicroBatch::full(1, 64, 10)]);
}

#[test]
fn lengths_are_halved_to_the_shortest() {
    assert_eq!(halves(128, 32).collect::<Vec<_>>(), [64, 32]);
    assert_eq!(halves(5, 1).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(halves(1, 1).count() + halves(0, 1).count(), 0);
}

#[test]
fn activations_made_again_are_named_where_they_are_kept() {
    let keeping = Workload {
        recompute: false,
        ..large(Storage::BF16, 8, 512)
    };
    insta::assert_snapshot!(advice(&keeping, 24 * GB), @r#"
    recompute = "blocks": 19.72 GB
    batch_size = 2 and accumulation = 4: 20.29 GB
    max_length = 128: 20.25 GB
    "#);
    let more = Workload {
        recompute: false,
        ..large(Storage::F32, 8, 512)
    };
    insta::assert_snapshot!(advice(&more, 20 * GB), @r#"recompute = "blocks", dtype = "bf16": 19.72 GB"#);
}
