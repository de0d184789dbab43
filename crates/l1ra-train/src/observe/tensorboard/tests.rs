//! What is written is what TensorBoard's own writer writes, and tells the run.

use l1ra_core::{BudgetUnit, RankPlan, allocation::RankChange};

use super::*;
use crate::observe::{
    AdapterInfo,
    tensorboard::events::{masked_crc, put_varint},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What TensorBoard 2.21's own writer makes of the same events:
///
/// ```python
/// from tensorboard.compat.proto.event_pb2 import Event
/// from tensorboard.compat.proto.summary_pb2 import Summary
/// from tensorboard.summary.writer.record_writer import RecordWriter
/// value = [Summary.Value(tag="eval/loss", simple_value=3.75),
///          Summary.Value(tag="ranks/total", simple_value=336)]
/// for event in (Event(wall_time=1700000000.25, file_version="brain.Event:2"),
///               Event(wall_time=1700000001.5, step=300, summary=Summary(value=value))):
///     RecordWriter(file := io.BytesIO()).write(event.SerializeToString())
///     print(file.getvalue().hex())
/// ```
#[test]
fn records_are_those_of_tensorboards_writer() {
    let version = record(&version_event(1_700_000_000.25));
    assert_eq!(
        hex(&version),
        "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"
    );
    let scalars = [("eval/loss".into(), 3.75), ("ranks/total".into(), 336.0)];
    let event = record(&scalar_event(1_700_000_001.5, 300, &scalars));
    let expected = concat!(
        "34000000000000005e33175c0900006040fc54d94110ac022a260a100a096576616c2f6c6f7373150000",
        "70400a120a0b72616e6b732f746f74616c150000a843e56ebadb"
    );
    assert_eq!(hex(&event), expected);
}

/// A field of a message: its number, and its bytes or its number's bits.
enum Field<'a> {
    Bits(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn varint(data: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let byte = data[0];
        *data = &data[1..];
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(count);
    *data = rest;
    taken
}

fn fields(mut data: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let number = key >> 3;
        fields.push(match key & 7 {
            0 => Field::Bits(number, varint(&mut data)),
            1 => Field::Bits(
                number,
                u64::from_le_bytes(take(&mut data, 8).try_into().unwrap()),
            ),
            2 => {
                let length = varint(&mut data) as usize;
                Field::Bytes(number, take(&mut data, length))
            }
            5 => {
                let bits = u32::from_le_bytes(take(&mut data, 4).try_into().unwrap());
                Field::Bits(number, u64::from(bits))
            }
            wire => panic!("wire type {wire}"),
        });
    }
    fields
}

/// The data of every record, both checksums checked.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let length = take(&mut file, 8);
        assert_eq!(take(&mut file, 4), masked_crc(length).to_le_bytes());
        let length = u64::from_le_bytes(length.try_into().unwrap());
        let data = take(&mut file, length as usize);
        assert_eq!(take(&mut file, 4), masked_crc(data).to_le_bytes());
        records.push(data);
    }
    records
}

fn value(message: &[u8]) -> String {
    let mut text = String::new();
    for field in fields(message) {
        match field {
            Field::Bytes(1, tag) => text.push_str(std::str::from_utf8(tag).unwrap()),
            Field::Bits(2, bits) => {
                text.push_str(&format!(" {}", f32::from_bits(bits as u32)));
            }
            _ => panic!("another field of a value"),
        }
    }
    text
}

/// `STEP: TAG VALUE, …`
fn event(message: &[u8]) -> String {
    let (mut step, mut rest) = (0, Vec::new());
    for field in fields(message) {
        match field {
            Field::Bits(1, seconds) => assert!(f64::from_bits(seconds) > 1.6e9),
            Field::Bits(2, number) => step = number,
            Field::Bytes(3, version) => {
                rest.push(String::from_utf8(version.to_vec()).unwrap());
            }
            Field::Bytes(5, summary) => {
                rest.extend(fields(summary).into_iter().map(|field| match field {
                    Field::Bytes(1, message) => value(message),
                    _ => panic!("another field of a summary"),
                }));
            }
            _ => panic!("another field of an event"),
        }
    }
    format!("{step}: {}", rest.join(", "))
}

fn start() -> RunStart {
    let adapter = |path: &str, d_out| AdapterInfo {
        path: path.into(),
        d_in: 4,
        d_out,
        rank: 2,
    };
    RunStart {
        steps: 2,
        update_steps: vec![1],
        adapters: vec![
            adapter("model.layers.0.self_attn.q_proj", 3),
            adapter("model.layers.0.mlp.up_proj", 7),
            adapter("model.layers.1.mlp.up_proj", 7),
        ],
        budget: 6,
        unit: BudgetUnit::Ranks,
    }
}

fn change(path: &str, pruned: Vec<usize>, added: usize) -> RankChange {
    RankChange {
        path: path.into(),
        before: 2,
        pruned,
        added,
    }
}

fn step(step: usize) -> StepMetrics {
    StepMetrics {
        step,
        loss: 2.5,
        grad_norm: 0.5,
        lr: 0.125,
        targets: 10,
        tokens: 300,
        seconds: 1.5 * step as f64,
        resident_bytes: if step == 1 { 64_500_000 } else { 0 },
    }
}

#[test]
fn a_run_is_written_as_scalars() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::create(dir.path()).unwrap();
    let result = EvalResult {
        loss: 3.75,
        perplexity: 42.5,
        tokens: 9,
    };
    let plan = RankPlan {
        changes: vec![
            change("model.layers.0.self_attn.q_proj", vec![1], 0),
            change("model.layers.0.mlp.up_proj", vec![], 1),
            change("model.layers.1.mlp.up_proj", vec![], 0),
        ],
        min_values: vec![0.0, 1.0, 1.0],
        excluded: vec![0],
        order: vec![1, 2],
        grown: vec![1],
        spare: 1,
        restart_optimizer: false,
        marked: Vec::new(),
    };
    let update = RankUpdate {
        step: 1,
        plan,
        gates: Vec::new(),
    };
    board.started(&start()).unwrap();
    board.evaluated(0, &result).unwrap();
    board.step(&step(1)).unwrap();
    board.ranks_moved(&update).unwrap();
    board.step(&step(2)).unwrap();
    let file = std::fs::read(board.path()).unwrap();
    let events: Vec<String> = records(&file).into_iter().map(event).collect();
    insta::assert_snapshot!(events.join("\n"), @r"
    0: brain.Event:2
    0: ranks/mean/q_proj 2, ranks/mean/up_proj 2, ranks/total 6, parameters/adapters 64
    0: eval/loss 3.75, eval/perplexity 42.5
    1: train/loss 2.5, train/grad_norm 0.5, train/lr 0.125, train/tokens_per_second 200, memory/resident_mb 64.5
    1: ranks/mean/q_proj 1, ranks/mean/up_proj 2.5, ranks/total 6, parameters/adapters 68
    2: train/loss 2.5, train/grad_norm 0.5, train/lr 0.125, train/tokens_per_second 200
    ");
    let name = board.path().file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    assert_eq!(name.split('.').count(), 6, "{name}");
}

#[test]
fn numbers_take_as_many_bytes_as_they_need() {
    let written = [0, 127, 128, 300, u64::MAX].map(|value| {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        hex(&bytes)
    });
    let expected = ["00", "7f", "8001", "ac02", "ffffffffffffffffff01"];
    assert_eq!(written, expected.map(String::from));
}
