//! llama.cpp's tensor names and row order, and Hugging Face's.

/// Hugging Face's name of a tensor, or `None` for one that Llama-family models do not have.
pub(super) fn hugging_face(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
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
    matches!(part, "weight" | "bias").then(|| format!("model.layers.{layer}.{module}.{part}"))
}

/// Undoes llama.cpp's permutation of q and k rows: `[heads, d/2, 2]` back to `[heads, 2, d/2]`.
/// `None` where the rows do not divide.
pub(super) fn unpermute(bytes: &[u8], row: usize, rows: usize, heads: usize) -> Option<Vec<u8>> {
    if heads == 0 || row == 0 || !rows.is_multiple_of(2 * heads) || bytes.len() != row * rows {
        return None;
    }
    let head = rows / heads;
    let half = head / 2;
    let mut sorted = Vec::with_capacity(bytes.len());
    for target in 0..rows {
        let (base, within) = (target / head * head, target % head);
        let source = base + (within % half) * 2 + within / half;
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
            unpermute(&permuted, 1, 8, 2).unwrap(),
            [0, 1, 2, 3, 4, 5, 6, 7]
        );
        assert_eq!(unpermute(&permuted, 1, 8, 3), None);
    }

    #[test]
    fn names_are_translated_or_refused() {
        let name = hugging_face("blk.12.ffn_down.weight").unwrap();
        assert_eq!(name, "model.layers.12.mlp.down_proj.weight");
        assert_eq!(hugging_face("blk.0.attn_q_norm.weight"), None);
    }
}
