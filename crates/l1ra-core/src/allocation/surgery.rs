//! A [`RankPlan`] applied to A, c and B and to the optimizer's moments.

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleMapper, Param},
    optim::ModuleOptimizer,
    tensor::{Int, Tensor, TensorData},
};

use crate::{
    allocation::plan::{RankChange, RankPlan},
    config::Init,
    error::CoreError,
    init::Noise,
    optim::record::OptimizerEntries,
    target::ends_with_name,
    walk::{self, AdapterView},
};

/// Ranks that stay, along one axis of a tensor, and how many zero ones follow them.
#[derive(Clone, Debug)]
struct Edit {
    axis: usize,
    /// Ranks that there are, the one slot of an adapter of rank 0 among them.
    before: usize,
    kept: Vec<usize>,
    added: usize,
}

/// Applies `plan` to every adapter of `module`.
///
/// Surviving columns of A, gates and rows of B keep their bits. A new rank has `c = 1`, a zero row
/// in B and a column of A drawn from `noise` as `init` says; so it changes no output when it arrives. `grown_before` ranks were grown earlier in the run, to count on.
///
/// An adapter that loses its last rank keeps one slot with `c = 0` and `B = 0`: it adds nothing and
/// gets no gradient.
///
/// # Errors
/// A plan that does not fit the module.
pub fn apply_to_module<M: Module>(
    module: M,
    plan: &RankPlan,
    initial_ranks: &HashMap<String, usize>,
    noise: &mut dyn Noise,
    init: Init,
    grown_before: usize,
) -> Result<M, CoreError> {
    let views = walk::adapters(&module);
    let pairs = pair(&views, plan)?;
    let mut columns: HashMap<usize, Vec<Vec<f32>>> = HashMap::new();
    for (count, index) in plan.grown.iter().enumerate() {
        let (view, change) = pairs.get(*index).ok_or_else(|| missing("(grown)"))?;
        let path = change.path.as_str();
        let initial = *initial_ranks.get(path).ok_or_else(|| missing(path))?;
        let d_in = view.dims()[0];
        let mut column = noise.column(path, grown_before + count, d_in, init);
        let unit = init.scale(d_in, initial);
        column.iter_mut().for_each(|value| *value *= unit);
        columns.entry(*index).or_default().push(column);
    }
    let mut surgeon = Surgeon {
        path: Vec::new(),
        changes: HashMap::new(),
    };
    for (index, (view, change)) in pairs.iter().enumerate() {
        if change.is_change() {
            check(change, view)?;
            let new_columns = columns.remove(&index).unwrap_or_default();
            surgeon
                .changes
                .insert(view.path.clone(), ((*change).clone(), new_columns));
        }
    }
    Ok(module.map(&mut surgeon))
}

/// Sets the gates of `module` to `gates`, one list an adapter, and trains those of adapters in `trained`:
/// the others are constants.
pub(crate) fn set_gates<M: Module>(module: M, gates: &[Vec<f32>], trained: &[bool]) -> M {
    let each = gates
        .iter()
        .zip(trained)
        .map(|(gates, trained)| (gates.clone(), *trained));
    module.map(&mut GateSetter {
        path: Vec::new(),
        gates: each.collect::<Vec<_>>().into_iter(),
    })
}

struct GateSetter {
    path: Vec<String>,
    gates: std::vec::IntoIter<(Vec<f32>, bool)>,
}

impl ModuleMapper for GateSetter {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !matches!(walk::split_part(&self.path), Some((_, "lora_c"))) {
            return param;
        }
        let Some((gates, trained)) = self.gates.next() else {
            return param;
        };
        let param = replace(param, |old| {
            let (dims, device) = (old.dims(), old.device());
            match dims[0] == gates.len() {
                true => Tensor::from_data(TensorData::new(gates, dims), &device),
                false => old,
            }
        });
        param.set_require_grad(trained)
    }
}

/// Applies `plan` to the moments of an optimizer: those of surviving ranks keep their bits, those
/// of new ranks are zero. Works with any optimizer whose state tensors have the parameter's axes.
///
/// `module` is the one from *before* the plan was applied: its parameter ids say which state is
/// whose.
///
/// # Errors
/// When the optimizer's record cannot be read back.
pub fn apply_to_optimizer<M: Module>(
    optimizer: &ModuleOptimizer,
    module: &M,
    plan: &RankPlan,
) -> Result<ModuleOptimizer, CoreError> {
    let views = walk::adapters(module);
    let mut edits = HashMap::new();
    for (view, change) in pair(&views, plan)? {
        if !change.is_change() {
            continue;
        }
        for (id, axis) in view.ids.iter().zip([1, 0, 0]) {
            let (kept, added) = slots(change);
            let before = view.rank();
            let edit = Edit {
                axis,
                before,
                kept,
                added,
            };
            edits.insert(id.val(), edit);
        }
    }
    edit_moments(optimizer, &edits)
}

/// Each adapter with its change, by position. The module may be wrapped in another since the plan's
/// paths were taken: its paths must end with the plan's.
fn pair<'a>(
    views: &'a [AdapterView],
    plan: &'a RankPlan,
) -> Result<Vec<(&'a AdapterView, &'a RankChange)>, CoreError> {
    if views.len() != plan.changes.len() {
        let detail = format!(
            "has {} adapters; the plan is for {}",
            views.len(),
            plan.changes.len()
        );
        return Err(CoreError::adapter("(module)", detail));
    }
    let pairs = views.iter().zip(&plan.changes);
    match pairs
        .clone()
        .find(|(view, change)| !ends_with_name(&view.path, &change.path))
    {
        Some((_, change)) => Err(missing(&change.path)),
        None => Ok(pairs.collect()),
    }
}

fn missing(path: &str) -> CoreError {
    CoreError::adapter(path, "is in the plan but not in the module")
}

fn check(change: &RankChange, view: &AdapterView) -> Result<(), CoreError> {
    let physical = if change.before == 0 { 1 } else { change.before };
    if view.rank() == physical && view.a.dims()[1] == physical && view.b.dims()[0] == physical {
        return Ok(());
    }
    let detail = format!(
        "the plan is for rank {}, but A is {:?}, c {:?} and B {:?}",
        change.before,
        view.a.dims(),
        view.c.dims(),
        view.b.dims()
    );
    Err(CoreError::adapter(&change.path, detail))
}

/// Kept indices and number of new slots, with the one slot that an adapter of rank 0 holds.
fn slots(change: &RankChange) -> (Vec<usize>, usize) {
    match (change.before, change.after()) {
        (_, 0) => (Vec::new(), 1),
        (0, after) => (Vec::new(), after),
        _ => (change.kept(), change.added),
    }
}

/// Edits A, c and B in place in the module tree, keeping ids and gradient settings.
struct Surgeon {
    path: Vec<String>,
    changes: HashMap<String, (RankChange, Vec<Vec<f32>>)>,
}

impl ModuleMapper for Surgeon {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((path, part)) = walk::split_part(&self.path) else {
            return param;
        };
        let Some((change, columns)) = self.changes.get(&path) else {
            return param;
        };
        let (kept, added) = slots(change);
        let before = change.before.max(1);
        let edit = |axis| Edit {
            axis,
            before,
            kept,
            added,
        };
        let alive = if change.after() == 0 { 0.0 } else { 1.0 };
        match part {
            "lora_a" => rebuild(param, &edit(1), |rows| column_data(columns, rows[0], added)),
            "lora_c" => rebuild(param, &edit(0), |_| vec![alive; added]),
            "lora_b" => rebuild(param, &edit(0), |rows| vec![0.0; added * rows[1]]),
            _ => param,
        }
    }
}

/// New columns as the row-major `[d_in, added]` part of A; zero where no column was drawn.
fn column_data(columns: &[Vec<f32>], d_in: usize, added: usize) -> Vec<f32> {
    let value = |row: usize, column: usize| columns.get(column).map_or(0.0, |values| values[row]);
    (0..d_in)
        .flat_map(|row| (0..added).map(move |column| (row, column)))
        .map(|(row, column)| value(row, column))
        .collect()
}

/// A parameter with other ranks.
fn rebuild<const D: usize>(
    param: Param<Tensor<D>>,
    edit: &Edit,
    new: impl FnOnce([usize; D]) -> Vec<f32>,
) -> Param<Tensor<D>> {
    replace(param, |tensor| edited(tensor, edit, new))
}

/// A parameter with a value computed outside the autodiff graph: same id, same gradient,
/// checkpointing and distribution settings.
pub(crate) fn replace<const D: usize>(
    param: Param<Tensor<D>>,
    value: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Param<Tensor<D>> {
    let id = param.id;
    param.map(|tensor| {
        let tracked = tensor.is_require_grad();
        let distributed = tensor.is_distributed();
        let strategy = tensor.gradient_checkpointing_strategy();
        let mut next = Tensor::from_inner(value(tensor.inner()));
        if let Some(strategy) = strategy {
            next = next.with_gradient_checkpointing_strategy(strategy);
        }
        next = next.set_require_grad(tracked);
        if distributed {
            next.set_distributed(id)
        } else {
            next
        }
    })
}

fn edited<const D: usize>(
    tensor: Tensor<D>,
    edit: &Edit,
    new: impl FnOnce([usize; D]) -> Vec<f32>,
) -> Tensor<D> {
    let (mut dims, device) = (tensor.dims(), tensor.device());
    let mut parts = Vec::with_capacity(2);
    let values = new(dims);
    if !edit.kept.is_empty() {
        let kept: Vec<i64> = edit.kept.iter().map(|index| *index as i64).collect();
        let kept = Tensor::<1, Int>::from_data(TensorData::new(kept, [edit.kept.len()]), &device);
        parts.push(tensor.select(edit.axis, kept));
    }
    if edit.added > 0 {
        dims[edit.axis] = edit.added;
        parts.push(Tensor::from_data(TensorData::new(values, dims), &device));
    }
    Tensor::cat(parts, edit.axis)
}

/// Rewrites the moments of the ranks that move.
fn edit_moments(
    optimizer: &ModuleOptimizer,
    edits: &HashMap<u64, Edit>,
) -> Result<ModuleOptimizer, CoreError> {
    let mut entries = OptimizerEntries::of(optimizer)?;
    for entry in &mut entries.tensors {
        let Some(edit) = entry.id.and_then(|id| edits.get(&id)) else {
            continue;
        };
        let ranks = entry.shape.get(edit.axis).copied();
        if ranks != Some(edit.before) {
            return Err(CoreError::OptimizerState(format!(
                "`{}` has shape {:?}; expected {} ranks along axis {}",
                entry.name, entry.shape, edit.before, edit.axis
            )));
        }
        (entry.shape, entry.bytes) = edit_bytes(&entry.shape, &entry.bytes, edit);
    }
    entries.into_optimizer(optimizer)
}

/// Keeps the chosen slices of a row-major array along one axis and appends zero ones.
fn edit_bytes(shape: &[usize], bytes: &[u8], edit: &Edit) -> (Vec<usize>, Vec<u8>) {
    let elements: usize = shape.iter().product();
    if elements == 0 || edit.axis >= shape.len() {
        return (shape.to_vec(), bytes.to_vec());
    }
    let length = shape[edit.axis];
    let outer: usize = shape[..edit.axis].iter().product();
    let slice = bytes.len() / (outer * length);
    let mut edited = Vec::with_capacity(outer * slice * (edit.kept.len() + edit.added));
    for block in bytes.chunks_exact(slice * length) {
        for index in &edit.kept {
            edited.extend_from_slice(&block[index * slice..(index + 1) * slice]);
        }
        edited.resize(edited.len() + edit.added * slice, 0);
    }
    let mut dims = shape.to_vec();
    dims[edit.axis] = edit.kept.len() + edit.added;
    (dims, edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_edited_along_any_axis() {
        let columns = Edit {
            axis: 1,
            before: 3,
            kept: vec![0, 2],
            added: 1,
        };
        let (shape, bytes) = edit_bytes(&[2, 3], &[1, 2, 3, 4, 5, 6], &columns);
        assert_eq!((shape, bytes), (vec![2, 3], vec![1, 3, 0, 4, 6, 0]));
        let rows = Edit {
            axis: 0,
            before: 2,
            kept: vec![1],
            added: 0,
        };
        let (shape, bytes) = edit_bytes(&[2, 3], &[1, 2, 3, 4, 5, 6], &rows);
        assert_eq!((shape, bytes), (vec![1, 3], vec![4, 5, 6]));
    }
}
