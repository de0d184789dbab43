//! Copies of a module on other devices, which follow its adapters.
//!
//! A frozen base is carried to a device once. After a step only what is trained is carried again: A, c
//! and B of every adapter, whose ranks may have moved.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Device, Tensor, container::TensorContainer},
};

use crate::{allocation::surgery::replace, error::CoreError, walk};

/// `copy`, with every parameter that `module` trains as it is there, carried to `device`. Parameters
/// belong together by their id, which a copy ([`Module::fork`]) shares; their shapes may differ.
pub fn follow<M: Module>(copy: M, module: &M, device: &Device) -> M {
    let mut trained = Trained(TensorContainer::new());
    module.visit(&mut trained);
    copy.map(&mut TakeOver {
        trained: trained.0,
        device: device.clone().inner(),
    })
}

/// Whether the adapters of `copy` have the ranks and, to the bit, the gates of `module`'s.
///
/// # Errors
/// The first adapter that differs, with both ranks; a device that cannot be read.
pub fn check_replica<M: Module>(copy: &M, module: &M) -> Result<(), CoreError> {
    let (copies, views) = (walk::adapters(copy), walk::adapters(module));
    if copies.len() != views.len() {
        let (seen, expected) = (copies.len(), views.len());
        let detail = format!("a copy of it has {seen} adapters; expected {expected}");
        return Err(CoreError::adapter("(module)", detail));
    }
    for (copy, view) in copies.iter().zip(&views) {
        let (seen, expected) = (copy.gates()?, view.gates()?);
        let differs = |detail: String| Err(CoreError::adapter(&view.path, detail));
        if seen.len() != expected.len() {
            let (seen, expected) = (seen.len(), expected.len());
            return differs(format!("has rank {expected}, and {seen} on another device"));
        }
        let mut gates = seen.iter().zip(&expected);
        if let Some((seen, expected)) = gates.find(|(a, b)| a.to_bits() != b.to_bits()) {
            return differs(format!(
                "has a gate {expected}, which is {seen} on another device"
            ));
        }
    }
    Ok(())
}

/// The tensors that get a gradient, by id.
struct Trained(TensorContainer<ParamId>);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0.register(param.id, param.val().inner());
        }
    }
}

struct TakeOver {
    trained: TensorContainer<ParamId>,
    device: Device,
}

impl ModuleMapper for TakeOver {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.trained.remove::<Tensor<D>>(&param.id) {
            Some(value) => replace(param, |_| value.to_device(&self.device)),
            None => param,
        }
    }
}
