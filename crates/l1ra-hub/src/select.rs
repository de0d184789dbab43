//! Which files of a repository are needed, from their names alone.

/// The weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// The list of files that the weights are in.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// What the loader reads beside the weights.
const SMALL: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Of these, what it cannot do without.
pub(super) const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];

/// Where a repository's weights are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights {
    /// `model.safetensors`.
    Single,
    /// The shards of `model.safetensors.index.json`.
    Sharded,
    /// One GGUF file, which holds everything.
    Gguf(String),
}

/// The files to download.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) small: Vec<&'static str>,
    pub(super) weights: Weights,
}

/// Chooses among `files`; what is wrong with a repository that holds no model.
pub(super) fn select(files: &[String]) -> Result<Selection, String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    if has(SINGLE) || has(INDEX) {
        if let Some(missing) = NEEDED.iter().find(|name| !has(name)) {
            return Err(match *missing {
                "tokenizer.json" => "holds no tokenizer.json (a tokenizer.model must be converted \
                                     first); choose a repository that has one"
                    .into(),
                other => format!("holds no {other}, so it is no model of transformers"),
            });
        }
        return Ok(Selection {
            small: SMALL.into_iter().filter(|name| has(name)).collect(),
            weights: if has(SINGLE) {
                Weights::Single
            } else {
                Weights::Sharded
            },
        });
    }
    select_gguf(files)
}

fn select_gguf(files: &[String]) -> Result<Selection, String> {
    let ending = |end: &str| -> Vec<&str> {
        let names = files.iter().map(String::as_str);
        names.filter(|name| name.ends_with(end)).collect()
    };
    let (safetensors, ggufs) = (ending(".safetensors"), ending(".gguf"));
    match ggufs.as_slice() {
        _ if files.iter().any(|file| file == "adapter_config.json") => Err(
            "holds an adapter, no model; fetch its base model, and give the adapter as a folder"
                .into(),
        ),
        _ if !safetensors.is_empty() => Err(format!(
            "holds {}, but neither {SINGLE} nor {INDEX}",
            some_of(&safetensors)
        )),
        [file] if is_plain(file) => Ok(Selection {
            small: Vec::new(),
            weights: Weights::Gguf((*file).to_string()),
        }),
        [] if ending(".bin").is_empty() => {
            Err(format!("holds neither {SINGLE}, {INDEX} nor a .gguf file"))
        }
        [] => Err(format!(
            "holds {} but no safetensors; convert it, or choose a repository that has {SINGLE}",
            some_of(&ending(".bin"))
        )),
        _ => Err(format!(
            "holds {}; download the one that you want and give its path",
            some_of(&ggufs)
        )),
    }
}

/// Whether a name from the hub names a file in a folder, and needs no escape in a URL.
pub(super) fn is_plain(name: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.bytes().all(byte) && !name.is_empty() && !name.starts_with('.')
}

fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(names: &[&str]) -> Result<Selection, String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        select(&names)
    }

    #[test]
    fn only_what_the_loader_reads_is_taken() {
        let files = [
            "README.md",
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "onnx/model.onnx",
            "tokenizer_config.json",
            "original/consolidated.00.pth",
        ];
        let selection = of(&files).unwrap();
        assert_eq!(
            selection.small,
            ["config.json", "tokenizer.json", "tokenizer_config.json"]
        );
        assert_eq!(selection.weights, Weights::Single);
        let sharded = of(&[
            "config.json",
            "tokenizer.json",
            INDEX,
            "model-00001-of-00002.safetensors",
        ]);
        assert_eq!(sharded.unwrap().weights, Weights::Sharded);
        let gguf = of(&["README.md", "config.json", "m.Q4_K_M.gguf"]).unwrap();
        assert_eq!(
            (gguf.small, gguf.weights),
            (vec![], Weights::Gguf("m.Q4_K_M.gguf".into()))
        );
    }

    #[test]
    fn what_is_no_model_is_refused_with_what_was_seen() {
        let error = |names: &[&str]| of(names).unwrap_err();
        insta::assert_snapshot!(error(&["model.safetensors", "tokenizer.json"]), @"holds no config.json, so it is no model of transformers");
        insta::assert_snapshot!(error(&["model.safetensors", "config.json", "tokenizer.model"]), @"holds no tokenizer.json (a tokenizer.model must be converted first); choose a repository that has one");
        insta::assert_snapshot!(error(&["adapter_config.json", "adapter_model.safetensors"]), @"holds an adapter, no model; fetch its base model, and give the adapter as a folder");
        insta::assert_snapshot!(error(&["config.json", "consolidated.safetensors"]), @"holds consolidated.safetensors, but neither model.safetensors nor model.safetensors.index.json");
        insta::assert_snapshot!(error(&["config.json", "pytorch_model.bin"]), @"holds pytorch_model.bin but no safetensors; convert it, or choose a repository that has model.safetensors");
        insta::assert_snapshot!(error(&["README.md"]), @"holds neither model.safetensors, model.safetensors.index.json nor a .gguf file");
        insta::assert_snapshot!(error(&["a.gguf", "b.gguf", "c.gguf", "d.gguf", "e.gguf"]), @"holds a.gguf, b.gguf, c.gguf, d.gguf and 1 more; download the one that you want and give its path");
        insta::assert_snapshot!(error(&["sub/a.gguf"]), @"holds sub/a.gguf; download the one that you want and give its path");
    }

    #[test]
    fn names_that_leave_the_folder_are_not_plain() {
        for name in [
            "", "..", ".hidden", "a/b", "../a", r"a\b", "a b", "a%2e", "a?b", "C:a", "a\0",
        ] {
            assert!(!is_plain(name), "{name:?}");
        }
        assert!(is_plain("model-00001-of-00002.safetensors"));
    }
}
