//! [`KvCache`]: keys and values of the tokens so far.

use burn::tensor::Tensor;

/// Keys and values of every block, `[batch, kv_heads, length, head_dim]`.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    length: usize,
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

    /// Appends a block's keys and values and returns all of them.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        let (k, v) = match self.layers[layer].take() {
            Some((k_old, v_old)) => (
                Tensor::cat(vec![k_old, k], 2),
                Tensor::cat(vec![v_old, v], 2),
            ),
            None => (k, v),
        };
        self.layers[layer] = Some((k.clone(), v.clone()));
        (k, v)
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
        for (k, v) in self.layers.iter_mut().flatten() {
            *k = k.clone().narrow(2, 0, length);
            *v = v.clone().narrow(2, 0, length);
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
