//! Where the tensors lie, checked against the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    GgufValue,
    parse::{Parsed, Reader},
    quant::GgmlType,
};

const DEFAULT_ALIGNMENT: usize = 32;

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// Row-major, as Hugging Face has it: ggml's dimensions reversed.
    pub(super) shape: Vec<usize>,
    pub(super) kind: GgmlType,
    /// Byte range in the file.
    pub(super) range: Range<usize>,
}

pub(super) fn alignment(
    reader: &Reader<'_>,
    metadata: &BTreeMap<String, GgufValue>,
) -> Parsed<usize> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match value.as_usize().filter(|value| value.is_power_of_two()) {
        Some(alignment) => Ok(alignment),
        None => reader.fail(format!(
            "general.alignment is {value:?}; expected a power of two"
        )),
    }
}

/// A tensor as the header describes it.
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: GgmlType,
    /// From the start of the data.
    pub(super) offset: usize,
}

/// Byte ranges of all tensors: inside the file, aligned, none twice, none over another.
pub(super) fn locate(
    reader: &Reader<'_>,
    stored: Vec<Stored>,
    alignment: usize,
) -> Parsed<Vec<(String, TensorInfo)>> {
    let Some(data) = reader.at.checked_next_multiple_of(alignment) else {
        return reader.fail(format!(
            "general.alignment {alignment} is larger than the file"
        ));
    };
    let mut names = BTreeSet::new();
    let mut tensors = Vec::with_capacity(stored.len());
    for Stored {
        name,
        shape,
        kind,
        offset,
    } in stored
    {
        if !names.insert(name.clone()) {
            return reader.fail(format!("tensor `{name}` is there twice"));
        }
        if !offset.is_multiple_of(alignment) {
            return reader.fail(format!(
                "tensor `{name}` lies at offset {offset} of the data; expected a multiple of \
                 {alignment}"
            ));
        }
        let range = byte_range(reader, &name, &shape, kind, data, offset)?;
        tensors.push((name, TensorInfo { shape, kind, range }));
    }
    refuse_overlap(reader, &tensors)?;
    Ok(tensors)
}

fn byte_range(
    reader: &Reader<'_>,
    name: &str,
    shape: &[usize],
    kind: GgmlType,
    data: usize,
    offset: usize,
) -> Parsed<Range<usize>> {
    let Some(bytes) = kind.byte_len(shape) else {
        return reader.fail(format!(
            "tensor `{name}` of type {kind:?} has shape {shape:?}; expected rows of a multiple of \
             {} and a size that fits into memory",
            kind.block()
        ));
    };
    let start = data.checked_add(offset);
    let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
    match range.filter(|range| range.end <= reader.file.len()) {
        Some(range) => Ok(range),
        None => reader.fail(format!(
            "tensor `{name}` needs {bytes} bytes at offset {offset} of the data, which begins at \
             byte {data}; the file has {} bytes (is it cut off?)",
            reader.file.len()
        )),
    }
}

fn refuse_overlap(reader: &Reader<'_>, tensors: &[(String, TensorInfo)]) -> Parsed<()> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| info.range.start);
    for pair in order.windows(2) {
        let ((first, before), (second, after)) = (pair[0], pair[1]);
        if after.range.start < before.range.end {
            return reader.fail(format!(
                "tensors `{first}` and `{second}` overlap at byte {}",
                after.range.start
            ));
        }
    }
    Ok(())
}
