//! [`TrainingState`]: adapters in training, with all that the next step depends on, on the host.
//!
//! ```text
//! module, optimizer, allocator ── capture ── TrainingState ── restore ── the same, to the bit
//! ```
//!
//! Random numbers are no part of it: those that adapters start and grow with are functions of seed,
//! path and count ([`init`](crate::init)).

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::{Module, ParamId},
    optim::ModuleOptimizer,
    tensor::DType,
};
pub use burn_pack::Scalar;

use crate::{
    allocation::{AllocatorState, RankAllocator},
    error::CoreError,
    optim::record::{Entry, OptimizerEntries},
    peft::AdapterSet,
    target::ends_with_name,
    walk::{self, AdapterData, AdapterView},
};

/// The parts of an adapter that are trained, in the order of every list of three here.
pub const PARTS: [&str; 3] = ["lora_a", "lora_c", "lora_b"];

/// Adapters in training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingState {
    /// Every adapter, in the module's order.
    pub adapters: Vec<AdapterState>,
    /// The state of the rank allocator.
    pub allocator: AllocatorState,
}

/// An adapter and the optimizer's state of its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterState {
    /// Its values.
    pub data: AdapterData,
    /// What the optimizer keeps of A, c and B.
    pub optimizer: [ParameterState; 3],
}

/// What an optimizer keeps of one parameter; empty before its first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParameterState {
    /// The parameter's path as the optimizer knows it, by which it finds its group.
    pub path: Option<String>,
    /// Tensors by the optimizer's names: `moment_1`, `moment_2`, `age`.
    pub tensors: BTreeMap<String, StateTensor>,
    /// Numbers by the optimizer's names: `time`.
    pub scalars: BTreeMap<String, Scalar>,
}

/// An f32 tensor of an optimizer, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct StateTensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

impl TrainingState {
    /// The state of a run between two steps.
    ///
    /// # Errors
    /// When the device cannot be read, or the optimizer keeps something that is no f32 tensor of an
    /// adapter.
    pub fn capture<M: Module>(
        module: &M,
        optimizer: &ModuleOptimizer,
        allocator: &RankAllocator,
    ) -> Result<Self, CoreError> {
        let views = walk::adapters(module);
        let allocator = allocator.state();
        let known = &allocator.adapters;
        check_paths(&views, known.iter().map(|known| known.path.as_str()))?;
        let mut states = by_parameter(OptimizerEntries::of(optimizer)?)?;
        let mut adapters = Vec::with_capacity(views.len());
        for (view, known) in views.iter().zip(known) {
            let path = known.path.clone(); // Without what the module was wrapped in since.
            adapters.push(AdapterState {
                data: AdapterData {
                    path,
                    ..view.data()?
                },
                optimizer: view
                    .ids
                    .map(|id| states.remove(&id.val()).unwrap_or_default()),
            });
        }
        if let Some(state) = states.into_values().next() {
            let path = state.path.unwrap_or_else(|| "(unnamed)".into());
            let detail = format!("`{path}` is trained and belongs to no adapter");
            return Err(CoreError::OptimizerState(detail));
        }
        let state = Self {
            adapters,
            allocator,
        };
        state.check()?;
        Ok(state)
    }

    /// The adapters, for [`install_adapters`](crate::peft::install_adapters).
    pub fn adapter_set(&self, dropout: f64) -> AdapterSet {
        AdapterSet {
            adapters: self
                .adapters
                .iter()
                .map(|adapter| adapter.data.clone())
                .collect(),
            dropout,
            config: None,
        }
    }

    /// `optimizer` with this state; `module` holds these adapters already.
    ///
    /// # Errors
    /// When `module` holds others, or the optimizer does not take the state.
    pub fn restore_optimizer<M: Module>(
        &self,
        module: &M,
        optimizer: &ModuleOptimizer,
    ) -> Result<ModuleOptimizer, CoreError> {
        self.check()?;
        let views = walk::adapters(module);
        let paths = self.adapters.iter().map(|adapter| &adapter.data.path);
        check_paths(&views, paths.map(String::as_str))?;
        let mut entries = OptimizerEntries::default();
        for (view, adapter) in views.iter().zip(&self.adapters) {
            for (id, state) in view.ids.iter().zip(&adapter.optimizer) {
                state.write(*id, &mut entries);
            }
        }
        entries.into_optimizer(optimizer)
    }

    /// Whether shapes agree: A, c, B and what the optimizer keeps of them; finite values; gates in
    /// `[0, 1]`; ranks within the budget.
    ///
    /// # Errors
    /// The first adapter that does not hold together.
    pub fn check(&self) -> Result<(), CoreError> {
        for adapter in &self.adapters {
            adapter.check()?;
        }
        let ranks = self
            .adapters
            .iter()
            .map(|adapter| (adapter.data.path.as_str(), adapter.dims()));
        self.allocator.check(ranks)
    }
}

impl AdapterState {
    /// `[d_in, r, d_out]`.
    fn dims(&self) -> [usize; 3] {
        let AdapterData { d_in, d_out, c, .. } = &self.data;
        [*d_in, c.len(), *d_out]
    }

    /// Shapes of A, c and B.
    pub fn shapes(&self) -> [Vec<usize>; 3] {
        let [d_in, rank, d_out] = self.dims();
        [vec![d_in, rank], vec![rank], vec![rank, d_out]]
    }

    fn check(&self) -> Result<(), CoreError> {
        let AdapterData { path, a, c, b, .. } = &self.data;
        let wrong = |detail: String| Err(CoreError::adapter(path, detail));
        if c.is_empty() {
            return wrong("has no rank; expected at least one slot".into());
        }
        for (part, (shape, values)) in PARTS.into_iter().zip(self.shapes().iter().zip([a, c, b])) {
            if size(shape) != Some(values.len()) {
                return wrong(format!(
                    "{part} has {} values; expected shape {shape:?}",
                    values.len()
                ));
            }
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return wrong(format!("{part} holds {value}; expected finite numbers"));
            }
        }
        if let Some(gate) = c.iter().find(|gate| !(0.0..=1.0).contains(*gate)) {
            return wrong(format!("a gate is {gate}; expected a number in [0, 1]"));
        }
        for (part, (shape, state)) in PARTS
            .into_iter()
            .zip(self.shapes().iter().zip(&self.optimizer))
        {
            for (name, tensor) in &state.tensors {
                let agrees = fits(&tensor.shape, shape);
                if !agrees || size(&tensor.shape) != Some(tensor.values.len()) {
                    return wrong(format!(
                        "{name} of {part} has shape {:?}; expected that of the parameter, {shape:?}",
                        tensor.shape
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether a module's adapters are those at `paths`; it may be wrapped in another since.
fn check_paths<'a>(
    views: &[AdapterView],
    paths: impl ExactSizeIterator<Item = &'a str>,
) -> Result<(), CoreError> {
    if views.len() != paths.len() {
        let (seen, known) = (views.len(), paths.len());
        let detail = format!("has {seen} adapters; expected {known}");
        return Err(CoreError::adapter("(module)", detail));
    }
    for (view, path) in views.iter().zip(paths) {
        if !ends_with_name(&view.path, path) {
            let detail = format!("is not `{path}`, which was expected here");
            return Err(CoreError::adapter(&view.path, detail));
        }
    }
    Ok(())
}

/// Number of elements, where a machine can hold them.
fn size(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |size, axis| size.checked_mul(*axis))
}

/// Whether a state tensor has its parameter's axes, each full or 1.
fn fits(state: &[usize], parameter: &[usize]) -> bool {
    state.len() == parameter.len()
        && state
            .iter()
            .zip(parameter)
            .all(|(state, axis)| state == axis || *state == 1)
}

impl ParameterState {
    /// Adds the state of parameter `id` to an optimizer's record.
    fn write(&self, id: ParamId, entries: &mut OptimizerEntries) {
        let id = id.val();
        let name = |field: &str| format!("{id}.{field}");
        for (field, tensor) in &self.tensors {
            entries.tensors.push(Entry {
                name: name(field),
                dtype: DType::F32,
                shape: tensor.shape.clone(),
                id: Some(id),
                bytes: tensor
                    .values
                    .iter()
                    .flat_map(|value| value.to_ne_bytes())
                    .collect(),
            });
        }
        for (field, value) in &self.scalars {
            entries.scalars.insert(name(field), *value);
        }
        if let Some(path) = &self.path {
            entries.paths.insert(id.to_string(), path.clone());
        }
    }
}

/// A record's entries by the id of their parameter.
fn by_parameter(entries: OptimizerEntries) -> Result<HashMap<u64, ParameterState>, CoreError> {
    let wrong = |name: &str, detail: &str| {
        Err(CoreError::OptimizerState(format!(
            "`{name}` {detail}; it cannot be saved"
        )))
    };
    let mut states: HashMap<u64, ParameterState> = HashMap::new();
    for entry in entries.tensors {
        let Some((id, field)) = split(&entry.name) else {
            return wrong(&entry.name, "belongs to no parameter");
        };
        if entry.dtype != DType::F32 {
            return wrong(&entry.name, &format!("is {:?}, not F32", entry.dtype));
        }
        let (words, _) = entry.bytes.as_chunks::<4>();
        let tensor = StateTensor {
            shape: entry.shape,
            values: words.iter().map(|word| f32::from_ne_bytes(*word)).collect(),
        };
        let state = states.entry(id).or_default();
        state.tensors.insert(field.into(), tensor);
    }
    for (name, value) in entries.scalars {
        let Some((id, field)) = split(&name) else {
            return wrong(&name, "belongs to no parameter");
        };
        states
            .entry(id)
            .or_default()
            .scalars
            .insert(field.into(), value);
    }
    for (id, path) in entries.paths {
        if let Ok(id) = id.parse() {
            states.entry(id).or_default().path = Some(path);
        }
    }
    Ok(states)
}

/// `17.moment_1` as 17 and `moment_1`.
fn split(name: &str) -> Option<(u64, &str)> {
    let (id, field) = name.split_once('.')?;
    Some((id.parse().ok()?, field))
}
