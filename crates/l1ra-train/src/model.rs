//! [`FineTune`]: a language model with adapters, as a Burn learner.

use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams},
    tensor::{ExecutionError, Tensor},
    train::{
        InferenceStep, ItemLazy, TrainOutput, TrainStep,
        metric::{Adaptor, LossInput},
    },
};
use l1ra_models::CausalLm;

use crate::{callback::RankCallback, data::TokenBatch, loss_scale::LossScale, recompute};

/// What one forward gives: the loss summed over targets, and their number.
#[derive(Clone, Debug)]
pub struct LossOutput {
    /// Sum of the cross-entropy over targets, `[1]`.
    pub loss_sum: Tensor<1>,
    /// Number of targets.
    pub targets: usize,
    /// Number of tokens, padding not counted.
    pub tokens: usize,
}

impl LossOutput {
    /// The sum on the host.
    pub fn sum(&self) -> f64 {
        f64::from(self.loss_sum.clone().into_scalar::<f32>())
    }
}

impl ItemLazy for LossOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for LossOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss_sum.clone().div_scalar(self.targets.max(1) as f64))
    }
}

/// What the loss of a micro-batch is divided by before its backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Nothing: the strategy divides the gradients of a whole window by its targets.
    #[default]
    Sum,
    /// The micro-batch's own targets: for Burn's built-in strategies.
    Mean,
}

/// A language model whose adapters are trained, with rank reallocation in its optimizer step.
#[derive(Module, Debug)]
pub struct FineTune {
    /// The model.
    pub lm: CausalLm,
    #[module(skip)]
    ranks: Option<RankCallback>,
    #[module(skip)]
    reduction: Reduction,
    #[module(skip)]
    recompute: bool,
    #[module(skip)]
    seed: u64,
    #[module(skip)]
    scale: LossScale,
}

impl FineTune {
    /// A learner around `lm`, for [`StepStrategy`](crate::StepStrategy).
    pub fn new(lm: CausalLm, ranks: Option<RankCallback>) -> Self {
        Self {
            lm,
            ranks,
            reduction: Reduction::Sum,
            recompute: false,
            seed: 0,
            scale: LossScale::default(),
        }
    }

    /// The same with gradients that come multiplied by `scale`; whoever takes a step divides them by it.
    pub fn with_loss_scale(self, scale: LossScale) -> Self {
        Self { scale, ..self }
    }

    /// The same with the activations of blocks made again in the backward.
    pub fn with_block_recompute(self) -> Self {
        Self {
            recompute: true,
            ..self
        }
    }

    /// The same with another seed of dropout, which is a function of the seed and of the batch's
    /// number ([`Origin`](crate::data::Origin)). Burn's generator is global: with dropout, only one
    /// run at a time in a process is repeated to the bit.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The seed of a batch's dropout.
    fn dropout_seed(&self, number: u64) -> u64 {
        self.seed
            .wrapping_mul(0x2545_f491_4f6c_dd1d)
            .wrapping_add(number << 20)
    }

    /// What the backward begins with, for a loss summed over `targets`.
    pub(crate) fn reduced(&self, loss_sum: Tensor<1>, targets: usize) -> Tensor<1> {
        let loss = match self.reduction {
            Reduction::Sum => loss_sum,
            Reduction::Mean => loss_sum.div_scalar(targets as f64),
        };
        match self.scale.value() {
            1.0 => loss,
            scale => loss.mul_scalar(scale),
        }
    }

    /// The same with another reduction.
    pub fn with_reduction(self, reduction: Reduction) -> Self {
        Self { reduction, ..self }
    }

    /// The loss of a batch. Rows without a target are not multiplied with the head, and logits are
    /// never whole ([`CausalLm::loss_sum`]).
    pub fn loss(&self, batch: TokenBatch) -> LossOutput {
        let TokenBatch {
            ids,
            rows,
            targets,
            target_count,
            token_count,
            segments,
            origin: _,
        } = batch;
        let device = ids.device();
        let loss_sum = match (rows, targets) {
            (Some(rows), Some(targets)) => {
                let hidden = match &segments {
                    Some(segments) => self.lm.hidden_packed(ids, segments),
                    None => self.lm.hidden(ids, None),
                };
                let hidden = hidden.flatten::<2>(0, 1); // [tokens, hidden]
                self.lm.loss_sum(hidden.select(0, rows), targets)
            }
            _ => Tensor::zeros([1], &device),
        };
        LossOutput {
            loss_sum,
            targets: target_count,
            tokens: token_count,
        }
    }
}

impl TrainStep for FineTune {
    type Input = TokenBatch;
    type Output = LossOutput;

    fn step(&self, batch: TokenBatch) -> TrainOutput<LossOutput> {
        let seed = self.dropout_seed(batch.origin.number);
        if self.recompute {
            let (item, grads) = recompute::step(self, batch, seed);
            return TrainOutput { grads, item };
        }
        if self.lm.has_dropout() {
            batch.ids.device().inner().seed(seed);
        }
        let output = self.loss(batch);
        if output.targets == 0 {
            return TrainOutput {
                grads: GradientsParams::new(),
                item: output,
            };
        }
        let grads = self
            .reduced(output.loss_sum.clone(), output.targets)
            .backward();
        let item = LossOutput {
            loss_sum: output.loss_sum.inner(),
            ..output
        };
        TrainOutput::new(self, grads, item)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        match self.ranks.clone() {
            Some(ranks) => ranks.optimize(self, optim, lr, grads),
            None => optim.step(lr, self, grads),
        }
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        match self.ranks.clone() {
            Some(ranks) => ranks.optimize_multi(self, optim, lr, grads),
            None => optim.step_multi(lr, self, grads),
        }
    }
}

impl InferenceStep for FineTune {
    type Input = TokenBatch;
    type Output = LossOutput;

    fn step(&self, batch: TokenBatch) -> LossOutput {
        self.loss(batch)
    }
}
