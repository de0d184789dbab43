use l1ra_core::{
    BudgetUnit,
    allocation::{AllocatorState, KnownAdapter},
    state::Scalar,
};
use tempfile::TempDir;

use super::*;
use crate::{checkpoint::Evaluated, eval::EvalResult};

fn checkpoint() -> Checkpoint {
    let tensor = |shape: &[usize], value: f32| StateTensor {
        shape: shape.to_vec(),
        values: vec![value; shape.iter().product()],
    };
    let state = |shape: &[usize]| ParameterState {
        path: Some("lm.q_proj.adapter.lora".into()),
        tensors: BTreeMap::from([("moment_1".into(), tensor(shape, 0.25))]),
        scalars: BTreeMap::from([("time".into(), Scalar::UInt(2))]),
    };
    let adapter = AdapterState {
        data: AdapterData {
            path: "q_proj".into(),
            d_in: 3,
            d_out: 4,
            a: vec![0.1; 6],
            c: vec![1.0, 0.5],
            b: vec![f32::MIN_POSITIVE; 8],
            scale: 0.1,
        },
        optimizer: [state(&[3, 2]), state(&[2]), ParameterState::default()],
    };
    let result = EvalResult {
        loss: 1.0 / 3.0,
        perplexity: 1.4,
        tokens: 7,
    };
    let progress = Progress {
        step: 2,
        batches: 4,
        tokens: 100,
        seconds: 0.1,
        skipped: 1,
        before: Some(result),
        evaluated: Some(Evaluated { step: 2, result }),
        best: None,
        losses: vec![0.1, f64::MIN_POSITIVE],
    };
    let known = KnownAdapter {
        path: "q_proj".into(),
        initial_rank: 2,
        asleep: false,
    };
    Checkpoint {
        progress,
        identity: Identity {
            settings: serde_json::json!({"lr": 0.1}),
            ..Default::default()
        },
        updates: Vec::new(),
        state: TrainingState {
            adapters: vec![adapter],
            allocator: AllocatorState {
                step: 2,
                grown: 0,
                budget: 2,
                unit: BudgetUnit::Ranks,
                adapters: vec![known],
            },
        },
    }
}

fn assert_same(one: &Checkpoint, other: &Checkpoint) {
    assert_eq!(one.progress, other.progress);
    assert_eq!(one.identity, other.identity);
    assert_eq!(one.state, other.state);
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a");
    checkpoint().write(&path).unwrap();
    assert_same(&Checkpoint::read(&path).unwrap(), &checkpoint());
    let bytes = fs::read(&path).unwrap();
    checkpoint().write(&path).unwrap();
    assert_eq!(
        fs::read(&path).unwrap(),
        bytes,
        "the same state, the same bytes"
    );
}

#[test]
fn no_damage_goes_unseen() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a");
    checkpoint().write(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        assert!(
            Checkpoint::parse(&bytes[..length]).is_err(),
            "cut to {length}"
        );
    }
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x04;
        // A blank of the safetensors header's own may be another one: the content is then the same.
        if let Ok(read) = Checkpoint::parse(&damaged) {
            assert_same(&read, &checkpoint());
        }
    }
}

#[test]
fn what_does_not_hold_together_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a");
    let refused = |change: &dyn Fn(&mut Checkpoint)| {
        let mut damaged = checkpoint();
        change(&mut damaged);
        damaged.write(&path).unwrap();
        let error = Checkpoint::read(&path).unwrap_err().to_string();
        let start = format!("{}: ", path.display());
        error.strip_prefix(&start).map(String::from).unwrap()
    };
    insta::assert_snapshot!(
        [
            refused(&|checkpoint| checkpoint.progress.step = 3),
            refused(&|checkpoint| checkpoint.state.allocator.step = 1),
            refused(&|checkpoint| checkpoint.state.allocator.budget = 1),
            refused(&|checkpoint| checkpoint.state.adapters[0].data.c[1] = -0.5),
            refused(&|checkpoint| checkpoint.state.adapters[0].data.b[1] = f32::INFINITY),
        ]
        .join("\n"),
        @"
    has no `losses` of 3 steps, F64; take another checkpoint
    is after 2 steps, and its rank allocator after 1; take another checkpoint
    adapter `(module)`: its adapters hold 2 ranks; the budget is 1; take another checkpoint
    adapter `q_proj`: a gate is -0.5; expected a number in [0, 1]; take another checkpoint
    adapter `q_proj`: lora_b holds inf; expected finite numbers; take another checkpoint
    "
    );
    fs::write(&path, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let error = Checkpoint::read(&path).unwrap_err().to_string();
    assert!(error.contains("it is no checkpoint"), "{error}");
}
