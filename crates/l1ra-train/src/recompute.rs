//! Gradients with the activations of blocks made again in the backward.
//!
//! The forward keeps the input of every block and nothing else. The backward goes through the blocks
//! from the last to the first: each is run again from its input, with a graph of its own, which is
//! gone before the next one's begins. At its peak a step holds one block's activations and a row of
//! inputs, at the price of one more forward of every block.
//!
//! The second forward does what the first did, so gradients are those of a whole graph; where a
//! backend sums in a fixed order they are so to the bit. Dropout is drawn again with the seed of the
//! first.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Gradients, Tensor},
};
use l1ra_models::{
    CausalLm,
    block::{Block, norm},
    positions::Positions,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    data::TokenBatch,
    model::{FineTune, LossOutput},
};

/// Which activations are made again in the backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// None: all are kept.
    Off,
    /// Those within blocks: about a quarter more time, a fraction of the memory.
    Blocks,
    /// Those within blocks where the predicted memory of keeping all is not there.
    #[default]
    Auto,
}

impl std::fmt::Display for Recompute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Blocks => "blocks",
            Self::Auto => "auto",
        })
    }
}

impl std::str::FromStr for Recompute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "blocks" => Ok(Self::Blocks),
            "auto" => Ok(Self::Auto),
            other => Err(format!("`{other}`: off, blocks or auto")),
        }
    }
}

/// Loss and gradients of a batch, `seed` being that of its dropout.
pub(crate) fn step(
    model: &FineTune,
    batch: TokenBatch,
    seed: u64,
) -> (LossOutput, GradientsParams) {
    let lm = &model.lm;
    let (targets, tokens) = (batch.target_count, batch.token_count);
    let (Some(rows), Some(wanted)) = (batch.rows, batch.targets) else {
        let loss_sum = Tensor::zeros([1], &batch.ids.device().inner());
        let output = LossOutput {
            loss_sum,
            targets,
            tokens,
        };
        return (output, GradientsParams::new());
    };
    let device = batch.ids.device();
    let dropout = Dropout::of(lm, seed, &device);
    let positions = lm.positions(&batch.ids, batch.segments.as_ref());
    let mut inputs = vec![lm.embed(batch.ids).inner()];
    for (index, block) in lm.model.layers.iter().enumerate() {
        let input = inputs[index].clone();
        inputs.push(dropout.forward(index, block, input, &positions));
    }
    let last = from_inner(inputs.remove(lm.model.layers.len()), &device).require_grad();
    let hidden = norm(&lm.model.norm, last.clone()).flatten::<2>(0, 1);
    dropout.begin(lm.model.layers.len()); // The head's.
    let loss_sum = lm.loss_sum(hidden.select(0, rows), wanted);
    let mut grads = model.reduced(loss_sum.clone(), targets).backward();
    let mut slope = last.grad_remove(&mut grads);
    drop(last);
    let mut all = GradientsParams::new();
    if let Some(head) = &lm.lm_head {
        gather(&mut all, &mut grads, head);
    }
    drop(grads);
    let lowest = lm.model.layers.iter().position(is_trained);
    let lowest = lowest.unwrap_or(lm.model.layers.len());
    for (index, block) in lm.model.layers.iter().enumerate().skip(lowest).rev() {
        let (Some(dy), Some(input)) = (slope.take(), inputs.pop()) else {
            break;
        };
        dropout.begin(index);
        let mut x = from_inner(input, &device);
        if index > lowest {
            x = x.require_grad();
        }
        let y = block.forward_again(x.clone(), &positions);
        let dy = from_inner(dy, &device);
        let mut grads = (y * dy).sum().backward();
        if index > lowest {
            slope = x.grad_remove(&mut grads);
        }
        gather(&mut all, &mut grads, block);
    }
    let output = LossOutput {
        loss_sum: loss_sum.inner(),
        targets,
        tokens,
    };
    (output, all)
}

/// A tensor that a graph may begin with, on the training device.
fn from_inner<const D: usize>(x: Tensor<D>, device: &Device) -> Tensor<D> {
    let x = Tensor::from_inner(x);
    match device.gradient_checkpointing_strategy() {
        Some(strategy) => x.with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}

/// The device's generator, put where it was when a block was first run.
struct Dropout {
    seed: Option<u64>,
    device: Device,
}

impl Dropout {
    fn of(lm: &CausalLm, seed: u64, device: &Device) -> Self {
        Self {
            seed: lm.has_dropout().then_some(seed),
            device: device.clone(),
        }
    }

    /// A block's output without a graph.
    fn forward(
        &self,
        index: usize,
        block: &Block,
        x: Tensor<3>,
        positions: &Positions,
    ) -> Tensor<3> {
        self.begin(index);
        if self.seed.is_none() {
            return block.clone().valid().forward(x, positions, None);
        }
        // Dropout is active on a device with graphs only: nothing is trained there, so none is kept.
        let block = block.clone().no_grad();
        let y = block.forward(from_inner(x, &self.device), positions, None);
        y.inner()
    }

    fn begin(&self, block: usize) {
        if let Some(seed) = self.seed {
            self.device.clone().inner().seed(
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .wrapping_add(block as u64),
            );
        }
    }
}

/// Whether a block has a parameter that is trained.
fn is_trained(block: &Block) -> bool {
    let mut trained = Trained(false);
    block.visit(&mut trained);
    trained.0
}

struct Trained(bool);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 |= param.val().is_require_grad();
    }
}

/// Moves a module's gradients from a backward's to `all`.
fn gather<M: Module>(all: &mut GradientsParams, grads: &mut Gradients, module: &M) {
    let part = GradientsParams::from_module(grads, module);
    let mut mover = Mover { all, part };
    module.visit(&mut mover);
}

struct Mover<'a> {
    all: &'a mut GradientsParams,
    part: GradientsParams,
}

impl ModuleVisitor for Mover<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.part.remove::<D>(param.id) {
            self.all.register(param.id, grad);
        }
    }
}
