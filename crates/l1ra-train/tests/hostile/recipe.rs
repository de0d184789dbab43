//! Recipes.

use std::{fs, path::Path};

use l1ra_train::recipe::{Recipe, RecipeFile};

use crate::{
    damage::Shell,
    format::{Crafted, Format, Outcome, Seed, repository, run, run_crafted},
};

const FILE: &str = "recipe.toml";

fn load(dir: &Path) -> Outcome {
    let file = RecipeFile::load(&dir.join(FILE), &[])?;
    let _ = file.recipe.train.steps_for(1000);
    let saved = file.recipe.to_toml()?;
    let _ = Recipe::from_toml(&saved)?;
    Ok(())
}

fn format() -> Format {
    let recipe = |name: &str| {
        let path = repository(&format!("recipes/{name}.toml"));
        Seed::new(Shell::Text, FILE, fs::read(path).unwrap())
    };
    let all = "output = \"a\"\ndevice = \"flex\"\n[model]\npath = \"m\"\ndtype = \"bf16\"\n[data]\n\
               train = [\"a.jsonl\", {path = \"b/*.json\", weight = 2.5, form = \"alpaca\"}]\n\
               eval_fraction = 0.1\nmax_length = 64\n[adapters]\nrank = 4\ntargets = [\"q_proj\"]\n\
               rank_pattern = {\"q_proj\" = 3}\nalpha_pattern.v_proj = 2.0\nlambda = 1e-3\n\
               [optimizer]\nbeta_1 = 0.9\n[train]\nepochs = 1.5\nwarmup_ratio = 0.1\n\
               batch_size = 2\nseed = 7\n[log]\nevery = 5\n";
    let mut format = Format::new("recipe", load);
    // The text is parsed twice, once for the lines of its keys; both keep a tree, and an entry of
    // three letters has several hundred bytes in each.
    format.factor = 400;
    format.allowance = 4 << 20;
    format.inputs = 1000;
    format.seeds = vec![
        recipe("tiny"),
        recipe("smollm2-135m"),
        Seed::new(Shell::Text, FILE, all),
    ];
    format
}

#[test]
fn recipe() {
    run(format);
}

fn crafted() -> Crafted {
    let toml = |text: String| Seed::new(Shell::Text, FILE, text);
    let dotted = vec!["a"; 79].join(".");
    let inline = format!("{dotted} = {{ ").repeat(79);
    let keys: Vec<String> = (0..40_000).map(|at| format!("a{at} = 1\n")).collect();
    let long = "k".repeat(1_000_000);
    (
        format(),
        vec![
            (
                "deep keys in deep tables",
                toml(format!("[{dotted}]\n{inline}")),
            ),
            (
                "deep keys in deep tables that end",
                toml(format!("[{dotted}]\n{inline}b = 1{}", " }".repeat(79))),
            ),
            (
                "a deep key",
                toml(format!("{} = 1", vec!["a"; 50_000].join("."))),
            ),
            (
                "a deep table",
                toml(format!("[{}]", vec!["a"; 50_000].join("."))),
            ),
            ("nested lists", toml(format!("a = {}", "[".repeat(500_000)))),
            ("many keys", toml(keys.concat())),
            ("many tables", toml("[[a]]\n".repeat(40_000))),
            ("a long key", toml(format!("{long} = 1"))),
            ("a long table", toml(format!("[{long}]"))),
            ("a long value", toml(format!("device = \"{long}\""))),
            (
                "a long wrong value",
                toml(format!("[train]\nsteps = \"{long}\"")),
            ),
            ("many dots", toml(".".repeat(500_000))),
            ("nulls", toml("\0".repeat(500_000))),
        ],
    )
}

#[test]
fn recipe_crafted() {
    run_crafted(crafted);
}
