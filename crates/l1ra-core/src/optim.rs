//! [`AdamE`]: Adam with decoupled weight decay for A and B and decoupled lasso for the gates.

pub(crate) mod record;

use burn::{
    module::ParamGroup,
    optim::{LearningRate, ModuleOptimizer, Optimizer, RecordState},
    tensor::{Device, Tensor},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    allocation::{UpdateSchedule, policies::Gates},
    config::{L1raConfig, Policy},
};

/// The part of a parameter's path that makes it a gate.
const GATES: &str = r"(^|\.)lora_c$";
/// The part of a parameter's path that makes it an `A`, whose ranks are columns.
const A_MATRICES: &str = r"(^|\.)lora_a$";

/// Hyper-parameters of [`AdamE`] that adapters share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamEConfig {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of A and B. Gates have none.
    pub weight_decay: f64,
}

impl Default for AdamEConfig {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

/// How the L1 term moves a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasso {
    /// No L1 term: a matrix.
    Off,
    /// `c ← c − lr·λ·sign(c) − lr·m̂/(√v̂ + ε)`, sign from the value before the step: the authors'
    /// form. Gates can pass zero and stay outside `[0, 1]` until they are clamped.
    Subgradient,
    /// `c ← clip(soft(c − lr·m̂/(√v̂ + ε), lr·λ), 0, 1)` with
    /// `soft(u, t) = sign(u)·max(|u| − t, 0)`: the proximal step. Gates reach exact zero and stay
    /// in `[0, 1]`.
    Proximal,
    /// [`Proximal`](Self::Proximal) for gates below 1; a gate at 1 stays there. So a gate is penalised once
    /// it was put below 1, until it is 0 or the loss has brought it back.
    Marked,
}

/// λ of [`Lasso::Marked`]: the pull is half of what a gradient of one sign moves a gate, so a gate that the
/// loss wants comes back, and one that it does not mind goes.
pub const MARKED_LAMBDA: f64 = 0.5;

/// Adam with decoupled elastic-net terms (AdamE), as the optimizer of one parameter group:
///
/// ```text
/// m ← β₁m + (1−β₁)g      m̂ = m / (1 − β₁ᵗ)
/// v ← β₂v + (1−β₂)g²     v̂ = v / (1 − β₂ᵗ)
/// p ← p·(1 − lr·wd) − lr·m̂/(√v̂ + ε)          and the lasso, see [`Lasso`]
/// ```
///
/// With a [`rank_axis`](Self::rank_axis), `t` is counted for each rank on its own: a rank that was
/// grown late gets the bias correction of a first step and is not moved several times as far as
/// its neighbours.
///
/// Source: the authors' code (raul-singh/L1RA, `AdamE`); Loshchilov and Hutter, arXiv 1711.05101.
#[derive(Clone, Debug)]
pub struct AdamE {
    /// Shared hyper-parameters.
    pub config: AdamEConfig,
    /// Weight decay of this group.
    pub weight_decay: f64,
    /// The form of the L1 term.
    pub lasso: Lasso,
    /// L1 coefficient λ.
    pub lambda: f64,
    /// The tensor's axis along which ranks lie, to count steps for each; `None` counts one `t`.
    pub rank_axis: Option<usize>,
}

/// State of [`AdamE`] for one parameter.
#[derive(Clone, RecordState)]
pub struct AdamEState<const D: usize> {
    /// Steps since the state was made.
    pub time: usize,
    /// First moment, the parameter's shape.
    pub moment_1: Tensor<D>,
    /// Second moment, the parameter's shape.
    pub moment_2: Tensor<D>,
    /// Steps of each rank: the rank's axis full, every other axis 1.
    pub age: Option<Tensor<D>>,
}

impl Optimizer for AdamE {
    type State<const D: usize> = AdamEState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let state = self.advance(&grad, state);
        let step = self.direction(&state).mul_scalar(lr);
        let decay = lr * self.weight_decay;
        let decayed = if decay == 0.0 {
            tensor.clone()
        } else {
            tensor.clone().mul_scalar(1.0 - decay)
        };
        let shrink = lr * self.lambda;
        let next = match self.lasso {
            Lasso::Off => decayed - step,
            Lasso::Subgradient => decayed - tensor.sign().mul_scalar(shrink) - step,
            // soft() of a negative number is at most 0, so the clip to [0, 1] makes it
            // max(u − t, 0).
            Lasso::Proximal => (decayed - step).sub_scalar(shrink).clamp(0.0, 1.0),
            Lasso::Marked => {
                let marked = tensor.clone().lower_scalar(1.0);
                let pulled = (decayed - step).sub_scalar(shrink).clamp(0.0, 1.0);
                tensor.mask_where(marked, pulled)
            }
        };
        (next, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        AdamEState {
            time: state.time,
            moment_1: state.moment_1.to_device(device),
            moment_2: state.moment_2.to_device(device),
            age: state.age.map(|age| age.to_device(device)),
        }
    }
}

impl AdamE {
    /// Moments and counters after one more gradient.
    fn advance<const D: usize>(
        &self,
        grad: &Tensor<D>,
        state: Option<AdamEState<D>>,
    ) -> AdamEState<D> {
        let AdamEConfig { beta_1, beta_2, .. } = self.config;
        let first = grad.clone().mul_scalar(1.0 - beta_1);
        let second = grad.clone().square().mul_scalar(1.0 - beta_2);
        match state {
            None => AdamEState {
                time: 1,
                moment_1: first,
                moment_2: second,
                age: self
                    .rank_axis
                    .map(|axis| Tensor::ones(along(axis, grad.dims()), &grad.device())),
            },
            Some(state) => AdamEState {
                time: state.time + 1,
                moment_1: state.moment_1.mul_scalar(beta_1) + first,
                moment_2: state.moment_2.mul_scalar(beta_2) + second,
                age: state.age.map(|age| age.add_scalar(1.0)),
            },
        }
    }

    /// `m̂ / (√v̂ + ε)`.
    fn direction<const D: usize>(&self, state: &AdamEState<D>) -> Tensor<D> {
        let AdamEConfig {
            beta_1,
            beta_2,
            epsilon,
            ..
        } = self.config;
        let (m, root) = (state.moment_1.clone(), state.moment_2.clone().sqrt());
        match &state.age {
            Some(age) => {
                // 1 − βᵗ for each rank; exp(t·ln β) keeps it a handful of operations on [r].
                let correction = |beta: f64| {
                    age.clone()
                        .mul_scalar(beta.ln())
                        .exp()
                        .neg()
                        .add_scalar(1.0)
                };
                m / correction(beta_1) / (root / correction(beta_2).sqrt()).add_scalar(epsilon)
            }
            None => {
                let time = i32::try_from(state.time).unwrap_or(i32::MAX);
                let root = root
                    .div_scalar((1.0 - beta_2.powi(time)).sqrt())
                    .add_scalar(epsilon);
                m.div_scalar(1.0 - beta_1.powi(time)) / root
            }
        }
    }
}

/// `dims` with every axis but `axis` set to 1.
fn along<const D: usize>(axis: usize, dims: [usize; D]) -> [usize; D] {
    std::array::from_fn(|i| if i == axis { dims[i] } else { 1 })
}

/// The parameter group of all gates, for a learning rate of their own.
pub fn gate_group() -> ParamGroup {
    group(GATES)
}

/// The gates' learning rate, a constant: `eta_c`, but for `l1ra`, where it follows from the period `P` of
/// rank updates: `1 / (P·λ)` with [`MARKED_LAMBDA`], so that a gate that the loss does not mind goes from 1
/// to 0 between two updates.
pub fn gate_rate(adapters: &L1raConfig, schedule: &UpdateSchedule) -> f64 {
    match adapters.policy.logic().gates() {
        Gates::Constant => 0.0,
        Gates::Trained => adapters.eta_c,
        Gates::Marked => 1.0 / (schedule.period() as f64 * MARKED_LAMBDA),
    }
}

/// The optimizer of every adapter in a module: gates with the lasso, matrices with weight decay.
///
/// Everything else in the module is expected to be frozen; a trainable parameter that belongs to
/// no adapter is treated like a matrix.
pub fn adapter_optimizer(adapters: &L1raConfig, config: &AdamEConfig) -> ModuleOptimizer {
    let reference = adapters.policy == Policy::Reference;
    let matrices = |rank_axis: usize| AdamE {
        config: config.clone(),
        weight_decay: config.weight_decay,
        lasso: Lasso::Off,
        lambda: 0.0,
        rank_axis: (!reference).then_some(rank_axis),
    };
    let gates = AdamE {
        config: config.clone(),
        weight_decay: 0.0,
        lasso: match adapters.policy.logic().gates() {
            Gates::Constant => Lasso::Off,
            Gates::Marked => Lasso::Marked,
            Gates::Trained if reference => Lasso::Subgradient,
            Gates::Trained => Lasso::Proximal,
        },
        lambda: match adapters.policy.logic().gates() {
            Gates::Marked => MARKED_LAMBDA,
            Gates::Constant | Gates::Trained => adapters.lambda,
        },
        rank_axis: (!reference).then_some(0),
    };
    let others = AdamE {
        rank_axis: None,
        ..matrices(0)
    };
    ModuleOptimizer::from(others)
        .with_group(group(r"(^|\.)lora_b$"), matrices(0), None)
        .with_group(group(A_MATRICES), matrices(1), None)
        .with_group(gate_group(), gates, None)
}

#[allow(clippy::expect_used)]
fn group(pattern: &str) -> ParamGroup {
    ParamGroup::from_regex(pattern).expect("a constant of this file, checked by its tests")
}
