//! [`KvCache`]: keys and values of the tokens so far.

use burn::tensor::Tensor;
use l1ra_ops::AttentionCache;

/// Keys and values of every block.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<Layer>,
    length: usize,
    capacity: usize,
}

/// Keys and values of one block.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A few dozen of them, each with megabytes behind it.
enum Layer {
    /// For attention by Burn's own operations, `[batch, kv_heads, length, head_dim]` each.
    Tensors(Option<(Tensor<4>, Tensor<4>)>),
    /// For attention by kernels on the host.
    Host(AttentionCache),
}

impl KvCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// An empty cache with room for `tokens` of every row, made when the first are kept.
    pub fn with_capacity(tokens: usize) -> Self {
        Self {
            capacity: tokens,
            ..Self::default()
        }
    }

    /// Tokens that there will be room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends a block's keys and values and returns all of them.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let old = match self.layer(layer, || Layer::Tensors(None)) {
            Layer::Tensors(old) => old.take(),
            Layer::Host(_) => None,
        };
        let (k, v) = match old {
            Some((k_old, v_old)) => (
                Tensor::cat(vec![k_old, k], 2),
                Tensor::cat(vec![v_old, v], 2),
            ),
            None => (k, v),
        };
        self.layers[layer] = Layer::Tensors(Some((k.clone(), v.clone())));
        (k, v)
    }

    /// A block's keys and values on the host.
    pub(crate) fn host(&mut self, layer: usize) -> &mut AttentionCache {
        let place = self.layer(layer, || Layer::Host(AttentionCache::default()));
        if let Layer::Tensors(_) = place {
            *place = Layer::Host(AttentionCache::default());
        }
        match place {
            Layer::Host(cache) => cache,
            Layer::Tensors(_) => unreachable!("replaced above"),
        }
    }

    fn layer(&mut self, layer: usize, new: impl Fn() -> Layer) -> &mut Layer {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, new);
        }
        &mut self.layers[layer]
    }

    /// Counts the tokens of a forward, once all blocks have extended the cache.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }

    /// Keeps the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        if length >= self.length {
            return;
        }
        if length == 0 {
            *self = Self::default();
            return;
        }
        for layer in &mut self.layers {
            match layer {
                Layer::Host(cache) => cache.truncate(length),
                Layer::Tensors(Some((k, v))) => {
                    *k = k.clone().narrow(2, 0, length);
                    *v = v.clone().narrow(2, 0, length);
                }
                Layer::Tensors(None) => {}
            }
        }
        self.length = length;
    }
}

/// What a model has computed of one text, for another that begins alike.
#[derive(Clone, Debug)]
pub struct PromptCache {
    tokens: Vec<u32>,
    cache: KvCache,
}

impl PromptCache {
    /// `cache` holds keys and values of `tokens`.
    pub(crate) fn new(tokens: Vec<u32>, cache: KvCache) -> Self {
        Self { tokens, cache }
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The part that holds for `tokens` too, and its length.
    pub(crate) fn shared_with(self, tokens: &[u32]) -> (KvCache, usize) {
        let pairs = self.tokens.iter().zip(tokens);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        let mut cache = self.cache;
        cache.truncate(shared);
        (cache, shared)
    }
}
