//! Every adapter of any Burn module, by path.
//!
//! Nothing is asked of the module but that its adapters are [`GatedLora`](crate::GatedLora)
//! fields somewhere in its tree: they are found by their parameters' names.

use std::{fmt, ops::ControlFlow};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData},
};

use crate::error::CoreError;

/// The parameter names of a [`GatedLora`](crate::GatedLora), as they end its paths.
const PARTS: [&str; 4] = ["lora_a", "lora_c", "lora_b", "lora_scale"];

/// Handles on one adapter's tensors. Cheap: nothing is read back from the device.
#[derive(Clone, Debug)]
pub struct AdapterView {
    /// Path of the adapted layer.
    pub path: String,
    /// Ids of A, c and B.
    pub ids: [ParamId; 3],
    /// `A`, `[d_in, r]`, outside the autodiff graph.
    pub a: Tensor<2>,
    /// Gates, `[r]`.
    pub c: Tensor<1>,
    /// `B`, `[r, d_out]`.
    pub b: Tensor<2>,
    /// Scale, `[1]`.
    pub scale: Tensor<1>,
}

/// One adapter's values on the host.
#[derive(Clone, PartialEq)]
pub struct AdapterData {
    /// Path of the adapted layer.
    pub path: String,
    /// Columns of `A`.
    pub d_in: usize,
    /// Columns of `B`.
    pub d_out: usize,
    /// `A`, `[d_in, r]`, row-major.
    pub a: Vec<f32>,
    /// Gates, `[r]`.
    pub c: Vec<f32>,
    /// `B`, `[r, d_out]`, row-major.
    pub b: Vec<f32>,
    /// Scale `s`.
    pub scale: f32,
}

impl fmt::Debug for AdapterData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            d_in,
            d_out,
            c,
            scale,
            ..
        } = self;
        write!(
            f,
            "AdapterData({path} [{d_in}, {}, {d_out}] s={scale})",
            c.len()
        )
    }
}

impl AdapterView {
    /// Current rank.
    pub fn rank(&self) -> usize {
        self.c.dims()[0]
    }

    /// `[d_in, d_out]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.a.dims()[0], self.b.dims()[1]]
    }

    /// The gates on the host.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn gates(&self) -> Result<Vec<f32>, CoreError> {
        self.host(self.c.clone().into_data())
    }

    /// The adapter on the host.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn data(&self) -> Result<AdapterData, CoreError> {
        let [d_in, d_out] = self.dims();
        Ok(AdapterData {
            path: self.path.clone(),
            d_in,
            d_out,
            a: self.host(self.a.clone().into_data())?,
            c: self.gates()?,
            b: self.host(self.b.clone().into_data())?,
            scale: self.host(self.scale.clone().into_data())?[0],
        })
    }

    fn host(&self, data: TensorData) -> Result<Vec<f32>, CoreError> {
        data.convert::<f32>()
            .try_into_vec()
            .map_err(|error| CoreError::adapter(&self.path, format!("cannot be read: {error:?}")))
    }
}

impl AdapterData {
    /// Whether a gate is not zero: without one, the adapter adds nothing.
    pub fn has_gate(&self) -> bool {
        self.c.iter().any(|gate| *gate != 0.0)
    }

    /// Whether `ΔW = A·diag(c)·B` is zero because every rank has a gate or a row of `B` that is.
    pub fn is_without_effect(&self) -> bool {
        let rows = self.b.chunks_exact(self.d_out.max(1));
        let mut ranks = self.c.iter().zip(rows);
        ranks.all(|(gate, row)| *gate == 0.0 || row.iter().all(|value| *value == 0.0))
    }

    /// Current rank.
    pub fn rank(&self) -> usize {
        self.c.len()
    }
}

/// Every adapter of `module`, in the order of its fields.
pub fn adapters<M: Module>(module: &M) -> Vec<AdapterView> {
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.finished
}

/// Number of parameters in the adapters of `module`: `r·(d_in + d_out + 1)` each. The slot of an adapter
/// without ranks counts for nothing.
pub fn adapter_parameters<M: Module>(module: &M) -> usize {
    let is_empty =
        |view: &AdapterView| view.rank() == 1 && view.gates().is_ok_and(|gates| gates == [0.0]);
    let cost = |view: &AdapterView| match is_empty(view) {
        true => 0,
        false => view.rank() * (view.dims()[0] + view.dims()[1] + 1),
    };
    adapters(module).iter().map(cost).sum()
}

/// Number of trainable parameters of `module`.
pub fn trainable_parameters<M: Module>(module: &M) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

/// Splits a parameter's path into its adapter's path and the part (`lora_a`, …), if it is one.
pub(crate) fn split_part(path: &[String]) -> Option<(String, &'static str)> {
    let (last, parents) = path.split_last()?;
    let part = PARTS.into_iter().find(|part| part == last)?;
    Some((adapter_path(parents), part))
}

/// The layer's path: the field that holds the adapter is left out when it is called `adapter`.
fn adapter_path(parents: &[String]) -> String {
    match parents.split_last() {
        Some((last, rest)) if last == "adapter" => rest.join("."),
        _ => parents.join("."),
    }
}

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    partial: Partial,
    finished: Vec<AdapterView>,
}

#[derive(Default)]
struct Partial {
    a: Option<(ParamId, Tensor<2>)>,
    c: Option<(ParamId, Tensor<1>)>,
    b: Option<(ParamId, Tensor<2>)>,
    scale: Option<Tensor<1>>,
}

impl Partial {
    fn finish(&mut self, path: &str) -> ControlFlow<AdapterView> {
        let Self {
            a: Some(a),
            c: Some(c),
            b: Some(b),
            scale: Some(scale),
        } = self
        else {
            return ControlFlow::Continue(());
        };
        let view = AdapterView {
            path: path.into(),
            ids: [a.0, c.0, b.0],
            a: a.1.clone(),
            c: c.1.clone(),
            b: b.1.clone(),
            scale: scale.clone(),
        };
        *self = Self::default();
        ControlFlow::Break(view)
    }
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((path, part)) = split_part(&self.path) else {
            return;
        };
        match (part, D) {
            ("lora_a", 2) => self.partial.a = Some((param.id, plain(param))),
            ("lora_c", 1) => self.partial.c = Some((param.id, plain(param))),
            ("lora_b", 2) => self.partial.b = Some((param.id, plain(param))),
            ("lora_scale", 1) => self.partial.scale = Some(plain(param)),
            _ => return,
        }
        if let ControlFlow::Break(view) = self.partial.finish(&path) {
            self.finished.push(view);
        }
    }
}

/// The parameter's tensor outside the graph, its rank `D` known to be `E` by the caller.
fn plain<const D: usize, const E: usize>(param: &Param<Tensor<D>>) -> Tensor<E> {
    Tensor::from_dispatch(param.val().inner().into_dispatch())
}
