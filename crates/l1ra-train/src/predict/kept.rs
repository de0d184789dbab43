//! What a forward keeps for its backward, layer by layer.
//!
//! Written down from the code: `N` tokens, `r` ranks, f32 throughout. On `flex`, whose operations are
//! those of `l1ra-ops`:
//!
//! | part | kept |
//! |---|---|
//! | q, k, v; gate, up | their input before its norm (once), every adapter's `h [N, r]` |
//! | attention | queries, keys, values side by side; its output; one number a head and token |
//! | o | `h`; its input is attention's output |
//! | down | gate and up before `silu`, `h` |
//! | norm, gate, sum, rotation | nothing |
//!
//! With dropout the norm and the gate are operations of their own, and adapters keep their dropped
//! inputs and masks. On other devices, what Burn 0.22.1's autodiff saves for each operation:
//!
//! | part | kept |
//! |---|---|
//! | norm | its input, two numbers a token |
//! | adapter | its input (once for all that share it), `h [N, r]`; with dropout, a mask and a dropped input each |
//! | attention | queries, keys, values: an operation of `l1ra-ops`, too |
//! | MLP | gate and up: the same |
//! | frozen product, rotation, sum, reshape | nothing |

use super::workload::{Home, MicroBatch, Workload};

/// Bytes of an f32.
pub(super) const F32: u64 = 4;

/// What one layer keeps, in numbers (not bytes), and what it hands on.
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
            let kept = match workload.home {
                Home::Flex => layer.kept_by_operations(tracked),
                Home::OtherCpu | Home::Gpu => layer.kept(tracked),
            };
            tracked = kept.tracked;
            kept
        })
        .collect()
}

/// Sizes of one layer, in numbers.
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
        }
    }

    fn kept(&self, tracked: bool) -> LayerKept {
        let tokens = self.tokens;
        let [q, k, v, o, gate, up, down] = self.ranks;
        let norm = |tracked: bool| {
            if tracked {
                tokens * (self.hidden + 2)
            } else {
                0
            }
        };

        let mixed = tracked || q + k + v > 0;
        let mut attention = norm(tracked) + self.adapters(&[q, k, v], self.hidden, tracked);
        attention += when(mixed, tokens * (self.queries + 2 * self.keys));
        attention += self.adapters(&[o], self.queries, mixed);

        let tracked = tracked || mixed || o > 0;
        let gated = tracked || gate > 0;
        let raised = tracked || up > 0;
        let mut mlp = norm(tracked) + self.adapters(&[gate, up], self.hidden, tracked);
        mlp += when(gated || raised, 2 * tokens * self.inner);
        mlp += self.adapters(&[down], self.inner, gated || raised);
        LayerKept {
            attention,
            mlp,
            tracked: tracked || gated || raised || down > 0,
        }
    }

    /// As [`kept`](Self::kept) by the operations of `l1ra-ops`.
    fn kept_by_operations(&self, tracked: bool) -> LayerKept {
        let tokens = self.tokens;
        let [q, k, v, o, gate, up, down] = self.ranks;
        let (wide, narrow) = (self.queries + 2 * self.keys, self.queries);

        let mixed = tracked || q + k + v > 0;
        let mut attention = self.operation(&[q, k, v], self.hidden, self.hidden, tracked);
        attention += when(mixed, tokens * (wide + narrow + self.heads));
        // Attention's output is o's input; without a graph before it, o alone keeps it.
        let o_kept = self.operation(&[o], narrow, 0, mixed);
        attention += o_kept + when(!mixed && o > 0, tokens * narrow);

        let tracked = tracked || mixed || o > 0;
        let mut mlp = self.operation(&[gate, up], self.hidden, self.hidden, tracked);
        let gated = tracked || gate + up > 0;
        mlp += self.operation(&[down], self.inner, 2 * self.inner, gated);
        LayerKept {
            attention,
            mlp,
            tracked: gated || down > 0,
        }
    }

    /// Layers with adapters of `ranks` on one input: `width` numbers a token as they see it, `kept`
    /// as it is kept, which is before the norm or the gate.
    fn operation(&self, ranks: &[u64], width: u64, kept: u64, tracked: bool) -> u64 {
        let tokens = self.tokens;
        let count = ranks.iter().filter(|rank| **rank > 0).count() as u64;
        if !tracked && count == 0 {
            return 0;
        }
        if !self.dropout || count == 0 {
            return tokens * (kept + ranks.iter().sum::<u64>());
        }
        // The norm or gate keeps its input, the frozen layers what it made of it.
        let frozen = when(tracked, tokens * (kept + width));
        frozen + adapters(ranks, tokens * width, tokens, tracked, true)
    }

    /// Adapters that share one input of `width`.
    fn adapters(&self, ranks: &[u64], width: u64, tracked: bool) -> u64 {
        adapters(
            ranks,
            self.tokens * width,
            self.tokens,
            tracked,
            self.dropout,
        )
    }
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
