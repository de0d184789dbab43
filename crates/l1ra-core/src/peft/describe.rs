//! [`AdapterFiles`]: what an adapter's folder holds, and who reads it right.

use std::path::Path;

use crate::{
    error::CoreError,
    peft::{
        AdapterSet, Layout, Reader,
        load::{Loaded, PeftConfig, load_all},
    },
};

/// An adapter with what its files say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFiles {
    /// The adapters, from the sidecar where there is one.
    pub set: AdapterSet,
    /// Whether there is a sidecar: gates are known, and ranks without padding.
    pub has_sidecar: bool,
    /// `r` of PEFT's configuration: the rank of modules that have none of their own.
    pub rank: usize,
    /// `lora_alpha` of PEFT's configuration.
    pub alpha: f64,
    /// The model that it was trained on, as PEFT's configuration names it.
    pub base_model: Option<String>,
    /// The lay-out that the files have the form of; `None` for one rank for all without any of
    /// ours.
    pub layout: Option<Layout>,
    /// Whether each reader gives every module the scale that PEFT gives it.
    pub right_in: [(Reader, bool); 3],
}

/// Reads the adapter in the folder `dir`, as [`load_adapter`](super::load_adapter) does, and says
/// what its files are like.
///
/// # Errors
/// As [`load_adapter`](super::load_adapter).
pub fn describe_adapter(dir: &Path) -> Result<AdapterFiles, CoreError> {
    let Loaded { config, plain, own } = load_all(dir)?;
    let right_in = Reader::ALL.map(|reader| (reader, is_right_in(reader, &config, &plain)));
    Ok(AdapterFiles {
        layout: layout(&config, &plain),
        has_sidecar: own.is_some(),
        set: own.unwrap_or(plain),
        rank: config.r,
        alpha: config.lora_alpha,
        base_model: config.base_model_name_or_path,
        right_in,
    })
}

/// The scales that `plain` has are PEFT's.
fn is_right_in(reader: Reader, config: &PeftConfig, plain: &AdapterSet) -> bool {
    plain.adapters.iter().all(|adapter| {
        let seen = match reader {
            Reader::Peft => return true,
            Reader::LlamaCpp => config.lora_alpha / adapter.rank() as f64,
            Reader::Vllm if config.use_rslora => config.lora_alpha / (config.r as f64).sqrt(),
            Reader::Vllm => config.lora_alpha / config.r as f64,
        };
        let wanted = f64::from(adapter.scale);
        (seen - wanted).abs() <= 1e-6 * wanted.abs()
    })
}

fn layout(config: &PeftConfig, plain: &AdapterSet) -> Option<Layout> {
    if !config.alpha_pattern.is_empty() {
        return Some(Layout::Exact);
    }
    if !config.rank_pattern.is_empty() {
        return Some(Layout::Folded);
    }
    let one_rank = plain.adapters.iter().all(|a| a.rank() == config.r);
    let padded = one_rank && config.lora_alpha == config.r as f64 && !config.use_rslora;
    padded.then_some(Layout::Padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::L1raConfig, peft::save_adapter_data, walk::AdapterData};

    fn adapters() -> Vec<AdapterData> {
        let adapter = |path: &str, rank: usize, scale: f32| AdapterData {
            path: path.into(),
            d_in: 2,
            d_out: 3,
            a: vec![0.5; 2 * rank],
            c: vec![1.0; rank],
            b: vec![0.25; rank * 3],
            scale,
        };
        vec![adapter("a.q_proj", 1, 1.0), adapter("b.q_proj", 3, 2.0)]
    }

    #[test]
    fn each_layout_is_recognised_with_its_readers() {
        let config = L1raConfig::default();
        for layout in Layout::ALL {
            let dir = tempfile::tempdir().unwrap();
            save_adapter_data(&adapters(), &config, layout, "org/base", dir.path()).unwrap();
            let files = describe_adapter(dir.path()).unwrap();
            assert_eq!(files.layout, Some(layout));
            assert_eq!(files.base_model.as_deref(), Some("org/base"));
            assert_eq!(files.set.adapters, adapters());
            assert!(files.has_sidecar);
            for (reader, right) in files.right_in {
                assert_eq!(right, layout.is_right_in(reader), "{layout} in {reader}");
            }
        }
    }

    #[test]
    fn notes_say_who_is_right_and_what_to_do() {
        let notes: Vec<String> = Reader::ALL
            .iter()
            .map(|reader| format!("{reader}: {}", Layout::Exact.reader_note(*reader)))
            .collect();
        insta::assert_snapshot!(notes.join("\n"), @r"
        PEFT: right: each module has its own alpha and rank; checked by running PEFT 0.21
        llama.cpp: WRONG for mixed ranks or scales: one alpha, divided by each module's own rank; write the lay-out padded or folded for it
        vLLM: WRONG for mixed ranks or scales: one alpha and one rank for all modules; write the lay-out padded for it
        ");
    }
}
