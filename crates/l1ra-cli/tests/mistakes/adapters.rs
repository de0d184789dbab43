//! Adapters: targets, ranks and their schedule.

use insta::assert_snapshot;

use crate::{support::Place, train, train_anew};

/// What is said with `key=value` laid over the recipe.
fn set(pair: &str) -> String {
    train_anew(&["--set", pair])
}

#[test]
fn a_target_that_the_model_does_not_have() {
    assert_snapshot!(set("adapters.targets=[\"q_proj\", \"w_proj\"]"), @r#"error: --set adapters.targets=["q_proj", "w_proj"]: target `w_proj` matches no linear layer of this model; nearest: k_proj, o_proj, q_proj, v_proj"#);
    let place = Place::new();
    place.change_recipe("rank = 4", "rank = 4\ntargets = [\"qkv_proj\"]");
    assert_snapshot!(train(&place, &[]), @"error: recipe.toml, line 12: target `qkv_proj` matches no linear layer of this model; nearest: q_proj, k_proj, v_proj, o_proj");
}

#[test]
fn targets_that_are_meant_as_names() {
    assert_snapshot!(set("adapters.targets=q_proj"), @r#"error: --set adapters.targets=q_proj: target `q_proj` matches no linear layer of this model; nearest: model.layers.0.self_attn.q_proj, model.layers.1.self_attn.q_proj, model.layers.2.self_attn.q_proj, model.layers.3.self_attn.q_proj; a text is a regular expression for a layer's whole path, names are a list: ["q_proj"]"#);
    assert_snapshot!(set("adapters.targets=q_proj, v_proj"), @r#"error: --set adapters.targets=q_proj, v_proj: target `q_proj, v_proj` matches no linear layer of this model; nearest: q_proj, k_proj, v_proj, gate_proj; a text is a regular expression for a layer's whole path, names are a list: ["q_proj", "v_proj"]"#);
}

#[test]
fn a_target_expression_that_does_not_compile() {
    assert_snapshot!(set("adapters.targets=.*(q_proj"), @"error: --set adapters.targets=.*(q_proj: targets: `.*(q_proj` is not a regular expression: unclosed group");
}

#[test]
fn a_rank_pattern_that_does_not_compile() {
    assert_snapshot!(set("adapters.rank_pattern={\"(q_proj\" = 8}"), @r#"error: --set adapters.rank_pattern={"(q_proj" = 8}: rank_pattern: `(q_proj` is not a regular expression: unclosed group"#);
}

#[test]
fn a_rank_pattern_that_matches_nothing() {
    assert_snapshot!(set("adapters.rank_pattern={w_proj = 8}"), @"error: --set adapters.rank_pattern={w_proj = 8}: adapters.rank_pattern = `w_proj`: a layer that gets an adapter; nearest: k_proj, o_proj, q_proj, v_proj");
}

#[test]
fn a_rank_of_zero() {
    assert_snapshot!(set("adapters.rank=0"), @"error: --set adapters.rank=0: adapters.rank = 0: an adapter has a rank of at least 1");
    assert_snapshot!(set("adapters.rank_pattern={q_proj = 0}"), @r#"error: --set adapters.rank_pattern={q_proj = 0}: adapters.rank_pattern = {"q_proj": 0}: a rank is at least 1; leave the layer out of `targets` instead"#);
}

#[test]
fn a_rank_beyond_the_matrix() {
    assert_snapshot!(set("adapters.rank=65"), @"error: --set adapters.rank=65: adapters.rank = 65: at most 64 for `model.layers.0.self_attn.k_proj` ([192, 64])");
}

#[test]
fn a_largest_rank_below_the_first() {
    assert_snapshot!(set("adapters.max_rank=2"), @"error: --set adapters.max_rank=2: adapters.max_rank = 2: at least the largest initial rank, 4");
}

#[test]
fn an_alpha_that_is_none() {
    assert_snapshot!(set("adapters.alpha=0"), @"error: --set adapters.alpha=0: adapters.alpha = 0: a positive number");
}

#[test]
fn a_gate_rate_that_is_none() {
    assert_snapshot!(set("adapters.eta_c=-0.1"), @"error: --set adapters.eta_c=-0.1: adapters.eta_c = -0.1: zero or a positive number");
}

#[test]
fn an_update_ratio_outside_its_range() {
    assert_snapshot!(set("adapters.update_ratio=1"), @r#"error: --set adapters.update_ratio=1: adapters.update_ratio = 1: a share of the run between 0 and 1, both excluded (policy = "lora" turns updates off)"#);
}

#[test]
fn a_schedule_without_an_update() {
    assert_snapshot!(set("adapters.update_ratio=0.9"), @r#"error: --set adapters.update_ratio=0.9: rank reallocation cannot work with this schedule: no update would ever happen: 8 optimizer steps, one update every 7 (update_ratio = 0.9), a warm-up of 1 steps and none in the last 20 % (settle_ratio). Train for more steps, lower update_ratio, warmup or settle_ratio, or set policy = "lora""#);
}

#[test]
fn a_schedule_with_more_updates_than_steps() {
    assert_snapshot!(set("adapters.update_ratio=0.01"), @r#"error: --set adapters.update_ratio=0.01: rank reallocation cannot work with this schedule: update_ratio = 0.01 asks for more updates than the 8 optimizer steps of this run. Use an update_ratio of at least 0.125, train for more steps, or set policy = "lora""#);
}

#[test]
fn a_budget_that_the_policy_does_not_know() {
    let sets = [
        "--set",
        "adapters.policy=reference",
        "--set",
        "adapters.budget=parameters",
    ];
    assert_snapshot!(train_anew(&sets), @r#"error: --set adapters.budget=parameters: adapters.budget = parameters: the reference policy counts ranks; use policy = "l1ra" for a parameter budget"#);
}
