//! llama.cpp's tensor names and row order, and Hugging Face's.

/// The architecture whose names, keys and row order these are.
pub(super) const ARCHITECTURE: &str = "llama";

/// Hugging Face's name of a tensor, or `None` for one that Llama-family models do not have.
/// No two names become one.
pub(super) fn hugging_face(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = number.parse().ok()?;
    // `blk.07` and `blk.+7` parse too.
    if layer.to_string() != number {
        return None;
    }
    let (module, part) = rest.split_once('.')?;
    let module = match module {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    // The norms of these models have no bias.
    let known = part == "weight" || part == "bias" && !module.ends_with("layernorm");
    known.then(|| format!("model.layers.{layer}.{module}.{part}"))
}

/// Undoes llama.cpp's permutation of q and k rows: `[heads, d/2, 2]` back to `[heads, 2, d/2]`,
/// where `rows` is `heads · d`. `None` where the rows do not divide.
pub(super) fn unpermute(bytes: &[u8], rows: usize, heads: usize) -> Option<Vec<u8>> {
    let pairs = heads.checked_mul(2).filter(|pairs| *pairs > 0)?;
    if rows == 0 || !rows.is_multiple_of(pairs) || !bytes.len().is_multiple_of(rows) {
        return None;
    }
    let (row, half) = (bytes.len() / rows, rows / pairs);
    let mut sorted = Vec::with_capacity(bytes.len());
    for target in 0..rows {
        let (head, within) = (target / (2 * half), target % (2 * half));
        let source = head * 2 * half + within % half * 2 + within / half;
        sorted.extend_from_slice(&bytes[source * row..(source + 1) * row]);
    }
    Some(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_hugging_face_s_order() {
        // llama.cpp interleaves the halves of each head: (0, d/2, 1, d/2 + 1, …).
        let permuted = [0, 2, 1, 3, 4, 6, 5, 7];
        assert_eq!(
            unpermute(&permuted, 8, 2).unwrap(),
            [0, 1, 2, 3, 4, 5, 6, 7]
        );
    }

    #[test]
    fn rows_that_do_not_fit_the_heads_are_refused() {
        for heads in [0, 3, 8, usize::MAX / 2 + 1, usize::MAX] {
            assert_eq!(unpermute(&[0; 8], 8, heads), None, "{heads}");
        }
    }

    #[test]
    fn names_are_translated_or_refused() {
        let name = hugging_face("blk.12.ffn_down.weight").unwrap();
        assert_eq!(name, "model.layers.12.mlp.down_proj.weight");
        for other in [
            "blk.0.attn_q_norm.weight",
            "blk.012.ffn_down.weight",
            "blk.+1.attn_q.bias",
            "blk.0.attn_norm.bias",
        ] {
            assert_eq!(hugging_face(other), None, "{other}");
        }
    }
}
