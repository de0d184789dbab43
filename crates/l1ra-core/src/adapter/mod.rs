//! Adapters on linear layers: the modules, the operation, and how they are put on a model.

mod gated;
mod linear;
pub mod op;

pub use gated::GatedLora;
pub use l1ra_ops::linear::{Output, Products, Prologue};
pub use linear::{AdaptedLinear, Unmerge, forward_together};

use std::collections::BTreeMap;

use burn::tensor::Device;

use crate::{
    allocation::policies::Gates,
    config::L1raConfig,
    error::ConfigError,
    init::SeededNoise,
    target::{AdapterSpec, adapter_specs},
};

/// A module whose linear layers can take adapters.
///
/// One method is enough for a model of your own:
///
/// ```
/// # use l1ra_core::{AdaptedLinear, AdaptedModule};
/// # use burn::module::Module;
/// #[derive(Module, Debug)]
/// struct Mlp {
///     up: AdaptedLinear,
///     down: AdaptedLinear,
/// }
///
/// impl AdaptedModule for Mlp {
///     fn for_each_linear(&mut self, visit: &mut dyn FnMut(&str, &mut AdaptedLinear)) {
///         visit("up", &mut self.up);
///         visit("down", &mut self.down);
///     }
/// }
/// ```
pub trait AdaptedModule {
    /// Calls `visit` with the path and the layer of every linear layer, always in the same order.
    ///
    /// Paths must be those of the module tree (field names joined with `.`), as rank updates find
    /// adapters by them.
    fn for_each_linear(&mut self, visit: &mut dyn FnMut(&str, &mut AdaptedLinear));
}

/// Paths of every linear layer of `module`, in its order.
pub fn linear_paths(module: &mut impl AdaptedModule) -> Vec<String> {
    let mut paths = Vec::new();
    module.for_each_linear(&mut |path, _| paths.push(path.to_string()));
    paths
}

/// Gives every layer that `config` selects a fresh adapter, and returns what was made. Layers that are
/// [open](L1raConfig::open) get one of rank 0.
///
/// `A` is drawn on the CPU from `config.seed` and the layer's path, so that all backends start
/// equal; `B` is zero and the gates are one, so the module's output does not change.
///
/// # Errors
/// A configuration out of range, or a target that matches no layer.
pub fn attach_adapters(
    module: &mut impl AdaptedModule,
    config: &L1raConfig,
    device: &Device,
) -> Result<Vec<AdapterSpec>, ConfigError> {
    config.validate()?;
    let specs = adapter_specs(config, &linear_paths(module))?;
    let by_path: BTreeMap<&str, &AdapterSpec> = specs
        .iter()
        .map(|spec| (spec.path.as_str(), spec))
        .collect();
    let noise = SeededNoise::new(config.seed);
    let trained = config.policy.logic().gates() == Gates::Trained;
    let mut too_large = None;
    module.for_each_linear(&mut |path, linear| {
        let Some(spec) = by_path.get(path) else {
            return;
        };
        let [d_in, d_out] = linear.dims();
        if let Err(error) = check_rank(spec, [d_in, d_out]) {
            too_large.get_or_insert(error);
            return;
        }
        let adapter = GatedLora::init(
            spec,
            d_in,
            d_out,
            (config.dropout, config.initial_values()),
            &noise,
            device,
        );
        linear.adapter = Some(adapter.with_trained_gates(trained));
    });
    too_large.map_or(Ok(specs), Err)
}

/// Whether a layer of `d_in` inputs and `d_out` outputs can hold the adapter's rank.
///
/// # Errors
/// A rank larger than the smaller of the two.
pub fn check_rank(spec: &AdapterSpec, [d_in, d_out]: [usize; 2]) -> Result<(), ConfigError> {
    let most = d_in.min(d_out);
    if spec.rank <= most {
        return Ok(());
    }
    Err(ConfigError::Value {
        field: "rank",
        seen: spec.rank.to_string(),
        expected: format!("at most {most} for `{}` ([{d_in}, {d_out}])", spec.path),
    })
}

/// Folds every adapter of `module` into its base weight, and returns what
/// [`unmerge_adapters`] needs to take it back.
///
/// Dropping the result frees the old weights.
pub fn merge_adapters(module: &mut impl AdaptedModule) -> BTreeMap<String, Unmerge> {
    let mut undo = BTreeMap::new();
    module.for_each_linear(&mut |path, linear| {
        if let Some(entry) = linear.merge() {
            undo.insert(path.to_string(), entry);
        }
    });
    undo
}

/// Takes a merge back: base weights are the very tensors from before, bit for bit.
pub fn unmerge_adapters(module: &mut impl AdaptedModule, mut undo: BTreeMap<String, Unmerge>) {
    module.for_each_linear(&mut |path, linear| {
        if let Some(entry) = undo.remove(path) {
            linear.unmerge(entry);
        }
    });
}
