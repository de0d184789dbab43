//! `l1ra report`.

use std::fs;

use insta::assert_snapshot;

use crate::{
    run::trained,
    support::{Place, made_run::write_run},
};

fn place() -> Place {
    let place = Place::new();
    write_run(&place.path("run"));
    place
}

fn report(place: &Place) -> String {
    let ran = place.run(&["report", "run"]).well();
    assert_eq!(ran.stderr, "");
    ran.stdout.trim_end().to_string()
}

#[test]
fn the_summary_in_a_terminal() {
    assert_snapshot!(report(&place()), @"
    eval loss   5.0000 → 4.0000
    perplexity  148.41 → 54.60
    training    10 s, 20 steps, 0.50 s each (predicted 0.55 s)
    speed       200 tokens/s, 2,000 tokens
    memory      212 MB at its peak (predicted 205 MB)
    parameters  984 → 1,240 in adapters

    ranks after 2 updates (change from the start)
    layer     q_proj     k_proj    up_proj
        0     3 (-1)     2 (-2)     6 (+2)
        1          4     3 (-1)     6 (+2)
     mean        3.5        2.5        6.0
    total 24 → 24 ranks, 4 moved

    Most adaptation was needed in up_proj (mean rank 4.0 → 6.0), least in k_proj (4.0 → 2.5). Among
    layers, layer 1 gained most (1 rank).

    report      run/report.html
    ");
}

#[test]
fn the_files() {
    let place = place();
    report(&place);
    assert_snapshot!(place.names("run").join("\n"), @"
    metrics.jsonl
    ranks.jsonl
    recipe.toml
    report
    report.html
    run.json
    ");
    assert_snapshot!(place.names("run/report").join("\n"), @"
    gates.svg
    loss.svg
    modules.svg
    parameters.svg
    ranks.svg
    ");
    // One file that needs no other, nor a network.
    let page = place.read("run/report.html");
    for sign in ["src=\"http", "href=\"http", "@import", "<link"] {
        assert!(!page.contains(sign), "{sign}");
    }
}

#[test]
fn a_run_that_was_cut_off() {
    let place = place();
    fs::remove_file(place.path("run/run.json")).unwrap();
    for (name, lines) in [("metrics.jsonl", 14), ("ranks.jsonl", 3)] {
        let path = format!("run/{name}");
        let text = place.read(&path);
        let kept: Vec<&str> = text.lines().take(lines).collect();
        let half = text.lines().nth(lines).unwrap();
        place.write(
            &path,
            format!("{}\n{}", kept.join("\n"), &half[..half.len() / 2]),
        );
    }
    assert_snapshot!(report(&place), @"
    The run has no end, with 13 of 20 steps written: it was cut off, or it still goes on.
    metrics.jsonl ends in half a line (line 15), which was left out.
    ranks.jsonl ends in half a line (line 4), which was left out.

    eval loss   5.0000, before training
    perplexity  148.41, before training
    training    7 s, 13 steps, 0.50 s each
    speed       200 tokens/s, 1,300 tokens
    memory      200 MB at its peak
    parameters  984 → 1,136 in adapters

    ranks after 2 updates (change from the start)
    layer     q_proj     k_proj    up_proj
        0     3 (-1)     2 (-2)     6 (+2)
        1          4     3 (-1)     6 (+2)
     mean        3.5        2.5        6.0
    total 24 → 24 ranks, 4 moved

    Up to step 13, where the record ends: most adaptation was needed in up_proj (mean rank 4.0 →
    6.0), least in k_proj (4.0 → 2.5). Among layers, layer 1 gained most (1 rank).

    report      run/report.html
    ");
}

#[test]
fn a_run_without_ranks() {
    let place = place();
    fs::remove_file(place.path("run/ranks.jsonl")).unwrap();
    assert_snapshot!(report(&place), @"
    The run has no end, with 20 steps written: it was cut off, or it still goes on.
    There is no ranks.jsonl, so nothing is known of ranks.

    eval loss   5.0000 → 4.0000
    perplexity  148.41 → 54.60
    training    10 s, 20 steps, 0.50 s each (predicted 0.55 s)
    speed       200 tokens/s, 2,000 tokens
    memory      212 MB at its peak (predicted 205 MB)
    parameters  984 → 1,240 in adapters

    The run wrote no adapters, so it does not tell where adaptation was needed.

    report      run/report.html
    ");
}

#[test]
fn what_a_program_reads_of_a_report() {
    let place = place();
    let result = place.run(&["--json", "report", "run"]).well().json();
    assert_snapshot!(serde_json::to_string_pretty(&result).unwrap(), @r#"
    {
      "report": "run/report.html",
      "files": [
        "run/report.html",
        "run/report/loss.svg",
        "run/report/ranks.svg",
        "run/report/modules.svg",
        "run/report/gates.svg",
        "run/report/parameters.svg"
      ],
      "complete": true,
      "steps": 20
    }
    "#);
    for file in result["files"].as_array().unwrap() {
        assert!(place.path(file.as_str().unwrap()).is_file(), "{file}");
    }
}

#[test]
fn the_ranks_for_another_trainer() {
    let run = trained();
    let ask = |trainer: &str| run.place.run(&["report", "out", "--rank-pattern", trainer]);
    let peft: serde_json::Value = serde_json::from_str(&ask("peft").well().stdout).unwrap();
    let targets = peft["target_modules"].as_array().unwrap();
    assert!(!targets.is_empty());
    for path in targets {
        let key = path.as_str().unwrap().replace('.', r"\.");
        let number = |pattern: &str| peft[pattern][&key].as_f64().unwrap();
        // The run's scale is alpha / rank = 1.
        assert_eq!(number("alpha_pattern"), number("rank_pattern"), "{key}");
    }
    let config = run.place.read("out/adapter/adapter_config.json");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for key in ["r", "lora_alpha", "target_modules", "rank_pattern"] {
        assert_eq!(peft[key], config[key], "{key}");
    }
    let axolotl = ask("axolotl").well().stdout;
    assert!(
        axolotl.contains("\nlora_rank_pattern:\n  'model\\.layers\\."),
        "{axolotl}"
    );
    let refused = ask("llama-factory");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert_snapshot!(refused.stderr.trim(), @"error: --rank-pattern llama-factory: has no key for ranks by module: `lora_rank` is one number for all. Take peft or axolotl, or give it the run's adapter to go on from (`adapter_name_or_path`)");
}

#[test]
fn a_run_without_an_adapter_has_no_ranks_to_give() {
    let ran = place().run(&["report", "run", "--rank-pattern", "peft"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert_snapshot!(ran.stderr.trim(), @"error: run/adapter: is not there; a run writes it at its end, unless every gate is zero");
}

#[test]
fn gates_that_are_zero_are_said() {
    let place = place();
    let text = place.read("run/ranks.jsonl");
    let mut lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let write = |lines: &[serde_json::Value]| {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        place.write("run/ranks.jsonl", lines.join("\n") + "\n");
    };
    let end = lines.len() - 1;
    let gates = lines[end]["gates"].as_array_mut().unwrap();
    for gate in gates[0].as_array_mut().unwrap() {
        *gate = 0.0.into();
    }
    write(&lines);
    let said = report(&place);
    assert!(
        said.contains("\ngates       3 of 24 are zero, these ranks have no effect\n"),
        "{said}"
    );
    assert!(said.contains("Most adaptation was needed in"), "{said}");

    let gates = lines[end]["gates"].as_array_mut().unwrap();
    for gate in gates
        .iter_mut()
        .flat_map(|list| list.as_array_mut().unwrap())
    {
        *gate = 0.0.into();
    }
    write(&lines);
    let said = report(&place);
    assert!(!said.contains("Most adaptation"), "{said}");
    assert!(
        said.contains("Every gate is zero at the end: the adapters change nothing"),
        "{said}"
    );
}
