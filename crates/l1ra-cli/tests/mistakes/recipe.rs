//! The recipe and what the command line lays over it.

use insta::assert_snapshot;

use crate::{support::Place, train, train_anew};

/// What is said of the recipe with `to` in place of `from`.
fn changed(from: &str, to: &str) -> String {
    let place = Place::new();
    place.change_recipe(from, to);
    train(&place, &[])
}

#[test]
fn a_recipe_that_is_not_there() {
    assert_snapshot!(Place::new().mistake(&["train", "recipes.toml"]), @"error: recipes.toml: no such file; a recipe is a TOML file (see the folder recipes)");
}

#[test]
fn a_recipe_that_is_a_folder() {
    assert_snapshot!(Place::new().mistake(&["train", "."]), @"error: .: is a folder; a recipe is a TOML file (see the folder recipes)");
}

#[test]
fn a_recipe_that_is_no_toml() {
    assert_snapshot!(changed("steps = 8", "steps = = 8"), @"error: recipe.toml, line 18: is not TOML: extra `=`, expected nothing");
    assert_snapshot!(changed("steps = 8", "steps = 8\nsteps = 9"), @"error: recipe.toml, line 19: is not TOML: duplicate key");
}

#[test]
fn alternatives_on_the_command_line() {
    let said = train_anew(&["--set", "train.steps=8", "--set", "train.epochs=2"]);
    assert_snapshot!(said, @"error: --set train.epochs=2: --set train.steps=8 is given as well; keep one of them");
    let said = train_anew(&[
        "--set",
        "train.warmup_steps=2",
        "--set",
        "train.warmup_ratio=0.1",
    ]);
    assert_snapshot!(said, @"error: --set train.warmup_ratio=0.1: --set train.warmup_steps=2 is given as well; keep one of them");
}

#[test]
fn a_recipe_that_is_data() {
    let place = Place::new();
    assert_snapshot!(place.mistake(&["train", "good.jsonl"]), @"error: good.jsonl, line 1: is not TOML: invalid key-value pair, expected key; a recipe is a TOML file (see the folder recipes)");
}

#[test]
fn an_unknown_key() {
    assert_snapshot!(changed("steps = 8", "step = 8"), @"error: recipe.toml, line 18: `train.step` is no key of a recipe; nearest: train.steps, train.seed, train.epochs");
    assert_snapshot!(changed("rank = 4", "r = 4"), @"error: recipe.toml, line 11: `adapters.r` is no key of a recipe; nearest: adapters.rank, adapters.dropout, adapters.targets");
}

#[test]
fn an_unknown_section() {
    assert_snapshot!(changed("[train]", "[trian]"), @"error: recipe.toml, line 17: `trian` is no section of a recipe; nearest: train, optimizer, data");
}

#[test]
fn a_value_in_place_of_a_section() {
    let place = Place::new();
    place.write(
        "recipe.toml",
        "model = \"m\"\n\n[data]\ntrain = \"good.jsonl\"\n",
    );
    assert_snapshot!(train(&place, &[]), @"error: recipe.toml, line 1: `model` is a section; write [model] and its keys below");
    assert_snapshot!(train_anew(&["--set", "model=x"]), @"error: --set model=x: `model` is a section; write [model] and its keys below");
}

#[test]
fn a_section_in_place_of_a_value() {
    assert_snapshot!(train_anew(&["--set", "train.steps.most=3"]), @"error: --set train.steps.most=3: `steps` is a value, not a section with keys");
}

#[test]
fn a_value_of_the_wrong_type() {
    assert_snapshot!(changed("steps = 8", "steps = \"many\""), @r#"error: recipe.toml, line 18: train.steps = "many": expected a whole number, 0 or more"#);
    assert_snapshot!(changed("steps = 8", "steps = -1"), @"error: recipe.toml, line 18: train.steps = -1: expected a whole number, 0 or more");
    assert_snapshot!(changed("steps = 8", "steps = 8.5"), @"error: recipe.toml, line 18: train.steps = 8.5: expected a whole number, 0 or more");
    assert_snapshot!(changed("rank = 4", "rank = 4\nreassign = 1"), @"error: recipe.toml, line 12: adapters.reassign = 1: expected true or false");
}

#[test]
fn a_word_that_is_no_choice() {
    assert_snapshot!(train_anew(&["--set", "train.schedule=cosinus"]), @r#"error: --set train.schedule=cosinus: train.schedule = "cosinus": expected one of cosine, linear, constant"#);
    assert_snapshot!(train_anew(&["--set", "adapters.policy=adalora"]), @r#"error: --set adapters.policy=adalora: adapters.policy = "adalora": expected one of l1ra, lora, gradient, lasso, reference, fixed"#);
}

#[test]
fn a_number_outside_its_range() {
    assert_snapshot!(changed("rank = 4", "rank = 4\ndropout = 1.5"), @"error: recipe.toml, line 12: adapters.dropout = 1.5: a number in [0, 1)");
    assert_snapshot!(changed("batch_size = 2", "batch_size = 0"), @"error: recipe.toml, line 19: train.batch_size = 0: at least 1");
    assert_snapshot!(train_anew(&["--set", "data.eval_fraction=1"]), @"error: --set data.eval_fraction=1: data.eval_fraction = 1: a number in (0, 1)");
    assert_snapshot!(train_anew(&["--set", "optimizer.beta_1=1"]), @"error: --set optimizer.beta_1=1: optimizer.beta_1 = 1: a number in [0, 1)");
}

#[test]
fn a_learning_rate_that_is_none() {
    assert_snapshot!(train_anew(&["--set", "train.lr=0"]), @"error: --set train.lr=0: train.lr = 0: a positive number");
    assert_snapshot!(train_anew(&["--set", "train.lr=nan"]), @"error: --set train.lr=nan: train.lr = NaN: a positive number");
}

#[test]
fn keys_that_exclude_each_other() {
    assert_snapshot!(changed("steps = 8", "steps = 8\nepochs = 2"), @"error: recipe.toml, line 19: train.epochs = 2: train.steps is given as well; keep one of them");
}

#[test]
fn a_warm_up_as_long_as_the_run() {
    assert_snapshot!(train_anew(&["--set", "train.warmup_steps=8"]), @"error: --set train.warmup_steps=8: train.warmup_steps = 8: fewer than the 8 steps of the run");
}

#[test]
fn set_without_a_value() {
    assert_snapshot!(train_anew(&["--set", "train.steps"]), @"error: --set train.steps: is no `key=value`; for example --set train.steps=20");
}

#[test]
fn set_with_an_unknown_key() {
    assert_snapshot!(train_anew(&["--set", "train.learning_rate=1e-3"]), @"error: --set train.learning_rate=1e-3: `train.learning_rate` is no key of a recipe; nearest: train.lr, train.warmup_ratio, train.not_finite");
    assert_snapshot!(train_anew(&["--set", "lr=1e-3"]), @"error: --set lr=1e-3: `lr` is no key of a recipe; nearest: train.lr, log.report, data.eval_fraction");
}

#[test]
fn a_recipe_without_a_model_or_data() {
    assert_snapshot!(changed("[model]\npath = ", "# path = "), @"error: recipe.toml: model.path = (nothing): a Hugging Face folder, a .gguf file or a hub name; or give --model");
    assert_snapshot!(changed("train = \"good.jsonl\"", ""), @"error: recipe.toml, line 6: data.train = (nothing): a file, a list of files, or tables with `path`; or give --data");
}

#[test]
fn no_recipe_at_all() {
    assert_snapshot!(Place::new().mistake(&["train"]), @"error: no recipe: give a recipe file, or at least --model and --data");
    assert_snapshot!(Place::new().mistake(&["train", "--data", "good.jsonl"]), @"error: no recipe: give a recipe file, or at least --model and --data");
}
