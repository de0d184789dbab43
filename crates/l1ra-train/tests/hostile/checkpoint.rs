//! Checkpoints. A damaged one is mostly refused by its checksum; so each is read again with the
//! checksum made right, as a forger would.

use std::{collections::BTreeMap, fs, path::Path};

use ::safetensors::SafeTensors;
use l1ra_core::{
    BudgetUnit, TrainingState,
    allocation::{AllocatorState, KnownAdapter, RankChange, RankPlan},
    state::{AdapterState, ParameterState, Scalar, StateTensor},
    walk::AdapterData,
};
use l1ra_train::{
    Checkpoint, RankUpdate,
    checkpoint::{Evaluated, Identity, Progress},
    eval::EvalResult,
};
use tempfile::TempDir;

use crate::{
    damage::Shell,
    format::{Format, Outcome, Seed, run, write_fuzz_seed},
};

const FILE: &str = "step-00000002.safetensors";

fn checkpoint() -> Checkpoint {
    let tensor = |shape: &[usize]| StateTensor {
        shape: shape.to_vec(),
        values: vec![0.25; shape.iter().product()],
    };
    let state = |shape: &[usize]| ParameterState {
        path: Some("lm.q_proj.adapter.lora".into()),
        tensors: BTreeMap::from([
            ("moment_1".into(), tensor(shape)),
            ("moment_2".into(), tensor(shape)),
        ]),
        scalars: BTreeMap::from([("time".into(), Scalar::UInt(2))]),
    };
    let adapter = |path: &str| AdapterState {
        data: AdapterData {
            path: path.into(),
            d_in: 3,
            d_out: 4,
            a: vec![0.1; 6],
            c: vec![1.0, 0.5],
            b: vec![0.2; 8],
            scale: 0.1,
        },
        optimizer: [state(&[3, 2]), state(&[2]), state(&[2, 4])],
    };
    let known = |path: &str| KnownAdapter {
        path: path.into(),
        initial_rank: 2,
        asleep: false,
    };
    let change = |path: &str| RankChange {
        path: path.into(),
        before: 2,
        pruned: vec![1],
        added: 1,
    };
    let result = EvalResult {
        loss: 1.5,
        perplexity: 4.5,
        tokens: 7,
    };
    let plan = RankPlan {
        changes: vec![change("q_proj"), change("k_proj")],
        min_values: vec![0.0, 0.1],
        excluded: vec![0],
        order: vec![1, 0],
        grown: vec![1, 0],
        spare: 2,
        restart_optimizer: false,
        marked: Vec::new(),
    };
    Checkpoint {
        progress: Progress {
            step: 2,
            batches: 4,
            tokens: 100,
            seconds: 0.5,
            skipped: 0,
            before: Some(result),
            evaluated: Some(Evaluated { step: 2, result }),
            best: Some(Evaluated { step: 2, result }),
            losses: vec![2.0, 1.5],
        },
        identity: Identity {
            settings: serde_json::json!({"train": {"lr": 0.1}, "adapters": {"rank": 2}}),
            ..Default::default()
        },
        updates: vec![RankUpdate {
            step: 1,
            plan,
            gates: vec![vec![1.0, 0.0], vec![0.1, 0.5]],
        }],
        state: TrainingState {
            adapters: vec![adapter("q_proj"), adapter("k_proj")],
            allocator: AllocatorState {
                step: 2,
                grown: 2,
                budget: 4,
                unit: BudgetUnit::Ranks,
                adapters: vec![known("q_proj"), known("k_proj")],
            },
        },
    }
}

fn seed() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(FILE);
    checkpoint().write(&path).unwrap();
    fs::read(path).unwrap()
}

/// The file with the checksum of what it holds now, where it is a safetensors file at all.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    const MARK: &[u8] = b"\"l1ra_checkpoint\":\"";
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    let entry = metadata.metadata().as_ref()?.get("l1ra_checkpoint")?;
    let (_, header) = entry.split_once(' ')?;
    let file = SafeTensors::deserialize(bytes).ok()?;
    let mut names = file.names();
    names.sort_unstable();
    let mut sum = crc32c::crc32c(header.as_bytes());
    for name in names {
        sum = crc32c::crc32c_append(sum, name.as_bytes());
        sum = crc32c::crc32c_append(sum, file.tensor(name).ok()?.data());
    }
    let at = bytes
        .windows(MARK.len())
        .position(|window| window == MARK)?
        + MARK.len();
    let mut sealed = bytes.to_vec();
    sealed
        .get_mut(at..at + 8)?
        .copy_from_slice(format!("{sum:08x}").as_bytes());
    Some(sealed)
}

fn touch(checkpoint: &Checkpoint) {
    let ranks = checkpoint.updates.iter().map(|update| update.plan.ranks());
    assert!(ranks.count() == checkpoint.updates.len());
    let _ = checkpoint.state.adapter_set(0.0);
}

fn load(dir: &Path) -> Outcome {
    let path = dir.join(FILE);
    let read = Checkpoint::read(&path);
    if let Some(sealed) = sealed(&fs::read(&path)?) {
        fs::write(&path, sealed)?;
        touch(&Checkpoint::read(&path)?);
    }
    touch(&read?);
    Ok(())
}

fn format() -> Format {
    let mut format = Format::new("checkpoint", load);
    // The file three times in this test's own hands; bytes, values and the JSON's tree in the loader's.
    format.factor = 8;
    format.inputs = 2000;
    format.seeds = vec![Seed::new(Shell::Safetensors, FILE, seed())];
    format
}

#[test]
fn checkpoint_files() {
    run(format);
}

pub(crate) fn fuzz_seeds() {
    write_fuzz_seed("checkpoint", "two_adapters", &seed());
}
