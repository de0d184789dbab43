//! The row cache: a file that is damaged is made again.

use std::{fs, path::Path};

use l1ra_train::data::{RowCache, prepare_data_with};

use crate::{
    damage::Shell,
    data::{options, tokenizer},
    format::{Format, Outcome, Seed, run},
};

fn format() -> Format {
    let (tokenizer, template) = tokenizer();
    let load = move |dir: &Path| -> Outcome {
        let (options, cache) = (options(dir), RowCache::at(dir));
        let data = prepare_data_with(&options, &tokenizer, Some(&template), &cache, &())?;
        assert!(data.train_rows() > 0 && cache.complaint().is_none());
        Ok(())
    };
    let dir = tempfile::tempdir().unwrap();
    let line = |at: usize| format!("{{\"prompt\": \"{at} + 2 =\", \"completion\": \" 4\"}}\n");
    let lines: String = (0..12).map(line).collect();
    fs::write(dir.path().join("data.jsonl"), lines).unwrap();
    load(dir.path()).unwrap();
    let entries = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap());
    let names: Vec<String> = entries
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    let rows = names.iter().find(|name| name.ends_with(".rows")).unwrap();
    let mut format = Format::new("rows", load);
    // Where the rows are not taken, the data beside them is tokenised.
    format.allowance = 4 << 20;
    format.inputs = 500;
    format.seeds = Seed::each_of(dir.path(), &[(rows, Shell::Hashed)]);
    format
}

#[test]
fn rows() {
    run(format);
}
