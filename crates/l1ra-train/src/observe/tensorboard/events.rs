//! TensorBoard's event files, byte by byte.
//!
//! An event file is a sequence of records (TensorFlow's `TFRecord`):
//!
//! ```text
//! u64 length | u32 masked CRC-32C of the length | data | u32 masked CRC-32C of the data
//! ```
//!
//! all little-endian, with `masked(crc) = rotate_right(crc, 15) + 0xa282ead8`. The data of a record
//! is an `Event` of TensorFlow's `event.proto`, of which five fields are written here:
//!
//! | field | number | type |
//! |---|---|---|
//! | `wall_time` | 1 | double |
//! | `step` | 2 | int64 |
//! | `file_version` | 3 | string, `brain.Event:2`, in the first record only |
//! | `summary` | 5 | `Summary` of `Value`s |
//! | `Value.tag`, `Value.simple_value` | 1, 2 | string, float |

/// A tag and its value.
pub(super) type Scalar = (String, f64);

/// `data` as a record.
pub(super) fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

pub(super) fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// The first event of a file.
pub(super) fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_double(&mut event, 1, wall_time);
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// Scalars of a step.
pub(super) fn scalar_event(wall_time: f64, step: usize, scalars: &[Scalar]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in scalars {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, tag.as_bytes());
        put_float(&mut value, 2, *number as f32);
        put_bytes(&mut summary, 1, &value);
    }
    let mut event = Vec::new();
    put_double(&mut event, 1, wall_time);
    put_key(&mut event, 2, WireType::Varint);
    put_varint(&mut event, step as u64);
    put_bytes(&mut event, 5, &summary);
    event
}

/// How protocol buffers write a field.
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    Eight = 1,
    Bytes = 2,
    Four = 5,
}

fn put_key(message: &mut Vec<u8>, field: u64, wire: WireType) {
    put_varint(message, field << 3 | wire as u64);
}

pub(super) fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn put_double(message: &mut Vec<u8>, field: u64, value: f64) {
    put_key(message, field, WireType::Eight);
    message.extend(value.to_le_bytes());
}

fn put_float(message: &mut Vec<u8>, field: u64, value: f32) {
    put_key(message, field, WireType::Four);
    message.extend(value.to_le_bytes());
}

fn put_bytes(message: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_key(message, field, WireType::Bytes);
    put_varint(message, value.len() as u64);
    message.extend(value);
}
