//! A small network with three linear layers that can take adapters.

use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    nn::{LinearConfig, loss::CrossEntropyLossConfig},
    optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams},
    tensor::{Device, Int, Tensor, activation::relu},
    train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep},
};
use l1ra_core::{AdaptedLinear, AdaptedModule};
use l1ra_train::RankCallback;

use crate::data::{CLASSES, PIXELS, Pictures, PicturesBatch, PicturesBatcher};

/// The model: its linear layers are [`AdaptedLinear`], the rest is plain Burn.
#[derive(Module, Debug)]
pub(crate) struct Classifier {
    input: AdaptedLinear,
    hidden: AdaptedLinear,
    output: AdaptedLinear,
    #[module(skip)]
    ranks: Option<RankCallback>,
}

/// Where its linear layers are, for `attach_adapters`.
impl AdaptedModule for Classifier {
    fn for_each_linear(&mut self, visit: &mut dyn FnMut(&str, &mut AdaptedLinear)) {
        visit("input", &mut self.input);
        visit("hidden", &mut self.hidden);
        visit("output", &mut self.output);
    }
}

impl Classifier {
    /// A network with random weights, all of them trainable.
    pub(crate) fn new(device: &Device) -> Self {
        let linear = |d_in, d_out| {
            let layer = LinearConfig::new(d_in, d_out).init(device);
            AdaptedLinear::from_linear(layer).set_require_grad(true)
        };
        Self {
            input: linear(PIXELS, 64),
            hidden: linear(64, 64),
            output: linear(64, CLASSES),
            ranks: None,
        }
    }

    /// The same with rank reallocation in its optimizer step.
    pub(crate) fn with_ranks(self, ranks: RankCallback) -> Self {
        Self {
            ranks: Some(ranks),
            ..self
        }
    }

    fn forward(&self, pixels: Tensor<2>) -> Tensor<2> {
        let x = relu(self.input.forward(pixels)); // [batch, 64]
        let x = relu(self.hidden.forward(x)); // [batch, 64]
        self.output.forward(x) // [batch, classes]
    }

    fn classify(&self, batch: PicturesBatch) -> ClassificationOutput {
        let output = self.forward(batch.pixels);
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        let loss = loss.forward(output.clone(), batch.labels.clone());
        ClassificationOutput::new(loss, output, batch.labels)
    }
}

impl TrainStep for Classifier {
    type Input = PicturesBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: PicturesBatch) -> TrainOutput<ClassificationOutput> {
        let item = self.classify(batch);
        TrainOutput::new(self, item.loss.clone().backward(), item)
    }

    /// The hook: the optimizer step, and the rank update where one is due.
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

impl InferenceStep for Classifier {
    type Input = PicturesBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: PicturesBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// Share of `pictures` that `model` classifies right.
pub(crate) fn accuracy(model: &Classifier, pictures: &Pictures, device: &Device) -> f32 {
    let batch = PicturesBatcher.stack(pictures.all(), device);
    let count = batch.labels.dims()[0];
    let guesses: Tensor<1, Int> = model.forward(batch.pixels).argmax(1).squeeze_dim(1);
    let right: i64 = guesses.equal(batch.labels).int().sum().into_scalar();
    right as f32 / count as f32
}
