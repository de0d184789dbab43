use l1ra_core::config::BudgetUnit;

use super::*;
use crate::predict::made::{rank_4, tiny_llama, workload};

fn row(length: usize, targets: usize) -> RowShape {
    RowShape { length, targets }
}

#[test]
fn rows_are_padded_to_the_longest() {
    let batch = MicroBatch::of(&[row(3, 1), row(5, 2)]);
    assert_eq!(
        batch,
        MicroBatch {
            rows: 2,
            length: 5,
            targets: 3,
            tokens: 8
        }
    );
    assert_eq!(batch.positions(), 10);
    assert_eq!(MicroBatch::of(&[]), MicroBatch::default());
}

#[test]
fn the_last_micro_batch_may_be_short() {
    let rows = [row(3, 1), row(5, 2), row(4, 4)];
    let batches = MicroBatch::in_order(&rows, 2);
    assert_eq!(
        batches,
        [MicroBatch::of(&rows[..2]), MicroBatch::of(&rows[2..])]
    );
    assert_eq!(MicroBatch::in_order(&rows, 0).len(), 3);
}

#[test]
fn parameters_of_adapters() {
    let all = workload("all-linear");
    assert_eq!(
        all.adapter_parameters(),
        8 * (129 + 97 + 97 + 129 + 3 * 193)
    );
    assert_eq!(workload("lm_head").adapter_parameters(), 4 * (64 + 256 + 1));
    assert_eq!([all.adapted_layers(), all.rank("lm_head")], [2, 0]);
    let upper = workload(r".*\.1\..*");
    assert_eq!([upper.is_adapted(0), upper.is_adapted(1)], [false, true]);
}

#[test]
fn a_budget_in_parameters_bounds_them() {
    let options = L1raConfig {
        budget: Some(BudgetUnit::Parameters),
        ..rank_4("all-linear")
    };
    let bounded = Workload::new(tiny_llama(), &options, Vec::new()).unwrap();
    let now = bounded.adapter_parameters();
    assert_eq!(bounded.adapter_parameters_at_most(), now);
    assert!(workload("all-linear").adapter_parameters_at_most() > now);
}

#[test]
fn numbers_as_stored_are_as_wide_as_in_the_files() {
    let element = |storage, source| {
        let workload = Workload {
            storage,
            source,
            ..workload("all-linear")
        };
        workload.element()
    };
    let files = |stored| WeightsFrom::Files { bytes: 1, stored };
    assert_eq!(element(Storage::AsStored, files(StoredType::BF16)), 2);
    assert_eq!(element(Storage::AsStored, files(StoredType::F32)), 4);
    assert_eq!(element(Storage::AsStored, WeightsFrom::Memory), 4);
    // What bf16 holds is kept in it, where kernels read it.
    assert_eq!(element(Storage::F32, files(StoredType::BF16)), 2);
    assert_eq!(element(Storage::F32, files(StoredType::F16)), 4);
    let elsewhere = Workload {
        source: files(StoredType::BF16),
        home: Home::OtherCpu,
        ..workload("all-linear")
    };
    assert_eq!(elsewhere.element(), 4);
    assert_eq!(element(Storage::F16, WeightsFrom::Memory), 2);
}
