//! What a forward keeps for its backward, layer by layer.
//!
//! Written down from the code: `N` tokens, `r` ranks. Layers, attention and the gate are operations of
//! `l1ra-ops` on every device; with kernels (on `flex`) they keep a little more, to do less again:
//!
//! | part | kept | with kernels, besides |
//! |---|---|---|
//! | q, k, v; gate, up | their input before its norm (once) | every adapter's `h [N, r]` |
//! | attention | queries, keys, values | its output; one number a head and token |
//! | o | its input, attention's output (once) | `h` |
//! | down | gate and up before `silu` | `h` |
//! | norm, gate, sum, rotation | nothing | |
//!
//! The input of a norm, `h` and the number a head are f32; the others are in the type of activations. With
//! dropout the norm and the gate are operations of their own, and adapters keep their dropped inputs and masks,
//! in f32.

use super::workload::{Home, MicroBatch, Workload};

/// Bytes of an f32.
pub(super) const F32: u64 = 4;

/// What one layer keeps, in bytes, and what it hands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LayerKept {
    /// Attention and its norm.
    pub(super) attention: u64,
    /// MLP and its norm.
    pub(super) mlp: u64,
    /// Whether the layer's output needs a gradient.
    pub(super) tracked: bool,
}

impl LayerKept {
    /// All that is kept.
    pub(super) fn total(self) -> u64 {
        self.attention + self.mlp
    }
}

/// Every layer of the model, for one micro-batch.
pub(super) fn layers(workload: &Workload, batch: &MicroBatch) -> Vec<LayerKept> {
    let mut tracked = false;
    (0..workload.config.num_hidden_layers)
        .map(|index| {
            let layer = Layer::new(workload, index, batch);
            let kept = layer.kept(tracked);
            tracked = kept.tracked;
            kept
        })
        .collect()
}

/// Sizes of one layer, in numbers but for `within`.
struct Layer {
    tokens: u64,
    hidden: u64,
    queries: u64,
    keys: u64,
    inner: u64,
    heads: u64,
    /// Ranks of q, k, v, o, gate, up, down.
    ranks: [u64; 7],
    dropout: bool,
    /// Bytes of an activation within the block.
    within: u64,
    kernels: bool,
}

impl Layer {
    fn new(workload: &Workload, index: usize, batch: &MicroBatch) -> Self {
        let config = &workload.config;
        let rank = |name: &str| workload.rank(&format!("model.layers.{index}.{name}")) as u64;
        let (tokens, heads) = (batch.positions() as u64, config.num_attention_heads as u64);
        Self {
            tokens,
            hidden: config.hidden_size as u64,
            queries: heads * config.head_dim as u64,
            keys: (config.num_key_value_heads * config.head_dim) as u64,
            inner: config.intermediate_size as u64,
            heads,
            ranks: [
                rank("self_attn.q_proj"),
                rank("self_attn.k_proj"),
                rank("self_attn.v_proj"),
                rank("self_attn.o_proj"),
                rank("mlp.gate_proj"),
                rank("mlp.up_proj"),
                rank("mlp.down_proj"),
            ],
            dropout: workload.options.dropout > 0.0,
            within: workload.activation_bytes(),
            kernels: workload.home == Home::Flex,
        }
    }

    fn kept(&self, tracked: bool) -> LayerKept {
        let (tokens, within) = (self.tokens, self.within);
        let [q, k, v, o, gate, up, down] = self.ranks;
        let (wide, narrow) = (self.queries + 2 * self.keys, self.queries);
        let stream = Input {
            width: self.hidden,
            kept: F32 * self.hidden,
            made: F32 * self.hidden,
        };

        let mixed = tracked || q + k + v > 0;
        let mut attention = self.operation(&[q, k, v], stream, tracked);
        let numbers = if self.kernels { F32 * self.heads } else { 0 };
        attention += when(mixed, tokens * (within * wide + numbers));
        // Attention's output, which attention keeps with kernels, is o's input.
        attention += when(self.kernels && mixed, tokens * within * narrow);
        let handed = Input {
            width: narrow,
            kept: when(!(self.kernels && mixed), within * narrow),
            made: 0,
        };
        attention += self.operation(&[o], handed, mixed);

        let tracked = tracked || mixed || o > 0;
        let mut mlp = self.operation(&[gate, up], stream, tracked);
        let gated = tracked || gate + up > 0;
        let raised = Input {
            width: self.inner,
            kept: within * 2 * self.inner,
            made: within * self.inner,
        };
        mlp += self.operation(&[down], raised, gated);
        LayerKept {
            attention,
            mlp,
            tracked: gated || down > 0,
        }
    }

    /// Bytes kept by layers with adapters of `ranks` on one input.
    fn operation(&self, ranks: &[u64], input: Input, tracked: bool) -> u64 {
        let tokens = self.tokens;
        let count = ranks.iter().filter(|rank| **rank > 0).count() as u64;
        if !tracked && count == 0 {
            return 0;
        }
        if !self.dropout || count == 0 {
            let low = when(self.kernels, F32 * ranks.iter().sum::<u64>());
            return tokens * (input.kept + low);
        }
        // The norm or gate keeps its input, the frozen layers what it made of it.
        let frozen = when(tracked, tokens * (input.kept + input.made));
        frozen + F32 * adapters(ranks, tokens * input.width, tokens, tracked, true)
    }
}

/// The input of layers: numbers a token as they see it; bytes of it as it is kept, which is before the norm or
/// the gate; bytes of what those make of it.
#[derive(Clone, Copy)]
struct Input {
    width: u64,
    kept: u64,
    made: u64,
}

/// Numbers kept by adapters of `ranks` on one input of `input` numbers in `tokens` rows.
pub(super) fn adapters(
    ranks: &[u64],
    input: u64,
    tokens: u64,
    tracked: bool,
    dropout: bool,
) -> u64 {
    let count = ranks.iter().filter(|rank| **rank > 0).count() as u64;
    let products = tokens * ranks.iter().sum::<u64>();
    let inputs = if dropout {
        // The dropped input is each adapter's own; the mask is kept to pass the gradient on.
        input * count * (1 + u64::from(tracked))
    } else {
        input * count.min(1)
    };
    inputs + products
}

fn when(condition: bool, numbers: u64) -> u64 {
    if condition { numbers } else { 0 }
}

#[cfg(test)]
mod tests;
