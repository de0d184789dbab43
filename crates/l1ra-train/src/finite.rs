//! The first tensor with a number that is not finite.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens when a loss or gradient is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotFinite {
    /// The run stops before the step is taken, and is saved as it was.
    #[default]
    Stop,
    /// The window's data are skipped and the next ones take their place, train.max_skipped times a run.
    Skip,
}

/// Names the first parameter of `module` that holds a number that is not finite, else the first
/// gradient; in the module's order.
pub(crate) fn first_not_finite<M: Module>(module: &M, grads: &GradientsParams) -> Option<String> {
    let mut search = Search {
        path: Vec::new(),
        grads,
        parameter: None,
        gradient: None,
    };
    module.visit(&mut search);
    let parameter = search.parameter.map(|path| format!("parameter {path}"));
    let gradient = || search.gradient.map(|path| format!("gradient of {path}"));
    parameter.or_else(gradient)
}

struct Search<'a> {
    path: Vec<String>,
    grads: &'a GradientsParams,
    parameter: Option<String>,
    gradient: Option<String>,
}

impl Search<'_> {
    fn look<const D: usize>(&self, found: &Option<String>, tensor: Tensor<D>) -> Option<String> {
        let finite = || {
            // A sum is finite only if every number is, but may overflow: then look at each.
            let sum = tensor.clone().sum().into_scalar::<f32>();
            sum.is_finite() || tensor.is_finite().all().into_scalar::<bool>()
        };
        match found {
            Some(path) => Some(path.clone()),
            None if finite() => None,
            None => Some(self.path.join(".")),
        }
    }
}

impl ModuleVisitor for Search<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.parameter = self.look(&self.parameter, param.val().inner());
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.gradient = self.look(&self.gradient, grad);
        }
    }
}
