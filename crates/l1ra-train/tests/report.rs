//! A run's folder read back, said in words, and made into a page.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod report_run;

use std::{fmt::Write as _, fs, path::Path};

use l1ra_train::{
    TrainError,
    report::{Movement, RunRecord, most_adapted, summary, write_report},
};
use report_run::{MadeRun, llama, named};
use tempfile::TempDir;

fn folder(run: &MadeRun) -> TempDir {
    let dir = TempDir::new().unwrap();
    run.write(dir.path());
    dir
}

fn read(run: &MadeRun) -> RunRecord {
    RunRecord::read(folder(run).path()).unwrap()
}

fn sentence(run: &MadeRun) -> String {
    most_adapted(&read(run)).to_string()
}

/// The error's text with the folder left out.
fn error_of(dir: &Path) -> String {
    let error = RunRecord::read(dir).unwrap_err();
    assert!(error.is_users_mistake());
    error.to_string().replace(dir.to_str().unwrap(), "DIR")
}

fn append(path: &Path, text: &str) {
    let old = fs::read_to_string(path).unwrap();
    fs::write(path, old + text).unwrap();
}

#[test]
fn a_whole_run_is_read_back() {
    let dir = TempDir::new().unwrap();
    MadeRun::small().write_all(dir.path());
    let record = RunRecord::read(dir.path()).unwrap();
    assert_eq!(record.steps.len(), 40);
    assert_eq!(record.steps[2].tokens, 100);
    assert!((record.steps[1].loss - 4.75).abs() < 1e-12);
    assert_eq!(record.evaluations.len(), 2);
    assert_eq!(record.evaluations[1].step, 40);
    assert_eq!(record.start.as_ref().unwrap().adapters.len(), 12);
    assert_eq!(record.updates.len(), 3);
    assert_eq!(record.updates[0].spare, 2);
    assert_eq!(record.updates[0].grown, [2, 8]);
    assert_eq!(record.end.as_ref().unwrap().ranks, record.updates[2].ranks);
    assert_eq!(record.info.model.as_deref(), Some("org/tiny"));
    assert_eq!(record.info.predicted_bytes, Some(205_000_000));
    assert_eq!(record.info.train[1].0, "length p50");
    assert_eq!(record.notes, [""; 0]);
    assert!(record.is_complete());
    assert_eq!(record.last_step(), 40);
    assert_eq!(record.ranks().unwrap().moved(), 10);
}

#[test]
fn the_summary_says_what_matters() {
    let dir = TempDir::new().unwrap();
    MadeRun::small().write_all(dir.path());
    let record = RunRecord::read(dir.path()).unwrap();
    insta::assert_snapshot!(summary(&record), @r"
    eval loss   5.0000 → 4.0000
    perplexity  148.41 → 54.60
    training    20 s, 40 steps, 0.50 s each (predicted 0.55 s)
    speed       200 tokens/s, 4,000 tokens
    memory      212 MB at its peak (predicted 205 MB)
    parameters  1,968 → 2,384 in adapters

    ranks after 3 updates (change from the start)
    layer     q_proj     k_proj    up_proj
        0     3 (-1)     1 (-3)     6 (+2)
        1          4     3 (-1)     6 (+2)
        2     3 (-1)     2 (-2)     7 (+3)
        3          4     2 (-2)     7 (+3)
     mean        3.5        2.0        6.5
    total 48 → 48 ranks, 10 moved

    Most adaptation was needed in up_proj (mean rank 4.0 → 6.5), least in k_proj (4.0 → 2.0). Among
    layers, layer 1 and layer 3 gained most (1 rank each).
    ");
}

#[test]
fn without_run_json_the_numbers_come_from_the_metrics() {
    insta::assert_snapshot!(summary(&read(&MadeRun::small())), @r"
    eval loss   5.0000 → 4.0000
    perplexity  148.41 → 54.60
    training    20 s, 40 steps, 0.50 s each
    speed       200 tokens/s, 4,000 tokens
    memory      200 MB at its peak
    parameters  1,968 → 2,352 in adapters

    ranks after 3 updates (change from the start)
    layer     q_proj     k_proj    up_proj
        0     3 (-1)     1 (-3)     6 (+2)
        1          4     3 (-1)     6 (+2)
        2     3 (-1)     2 (-2)     7 (+3)
        3          4     2 (-2)     7 (+3)
     mean        3.5        2.0        6.5
    total 48 → 48 ranks, 10 moved

    Most adaptation was needed in up_proj (mean rank 4.0 → 6.5), least in k_proj (4.0 → 2.0). Among
    layers, layer 1 and layer 3 gained most (1 rank each).
    ");
}

#[test]
fn the_sentence_names_what_gained_and_what_lost() {
    let mut run = MadeRun::ending(llama(6), 8, &[]);
    run.updates[0].1 = (0..6).flat_map(|layer| [7, 4, 11 + layer]).collect();
    insta::assert_snapshot!(sentence(&run), @"Most adaptation was needed in up_proj (mean rank 8.0 → 13.5), least in k_proj (8.0 → 4.0). By depth, the last third (layers 4–5) gained most (5 ranks); among layers, layer 5 gained most (3 ranks).");

    // Two gained as much as each other, and so did two layers.
    run.updates[0].1 = [9, 6, 9].repeat(6);
    insta::assert_snapshot!(sentence(&run), @"Most adaptation was needed in q_proj (mean rank 8.0 → 9.0) and up_proj (8.0 → 9.0), least in k_proj (8.0 → 6.0). By depth, no third of the layers gained more than another; among layers, none gained more than another.");

    let few = MadeRun::ending(llama(3), 8, &[8, 4, 11, 8, 5, 12, 7, 4, 13]);
    insta::assert_snapshot!(sentence(&few), @"Most adaptation was needed in up_proj (mean rank 8.0 → 12.0), least in k_proj (8.0 → 4.3). Among layers, layer 1 gained most (1 rank).");
}

#[test]
fn the_sentence_is_true_of_runs_in_which_nothing_was_gained() {
    let kept = MadeRun::ending(llama(2), 8, &[8; 6]);
    insta::assert_snapshot!(sentence(&kept), @"No adapter ended with another rank than it started with, after 1 rank update, so the run does not tell where adaptation was needed.");
    assert_eq!(most_adapted(&read(&kept)).movement, Movement::None);

    let mut fixed = MadeRun::ending(llama(2), 8, &[]);
    fixed.updates.clear();
    insta::assert_snapshot!(sentence(&fixed), @"No rank update was scheduled, so every adapter kept the rank it started with and the run does not tell where adaptation was needed.");
    assert_eq!(most_adapted(&read(&fixed)).movement, Movement::NotScheduled);

    let lost = MadeRun::ending(llama(2), 8, &[8, 4, 7, 8, 3, 6]);
    insta::assert_snapshot!(sentence(&lost), @"No module type gained rank: most was kept in q_proj (mean rank 8.0 → 8.0), least in k_proj (8.0 → 3.5). Among layers, layer 0 lost least (5 ranks).");

    let layers_only = MadeRun::ending(llama(2), 8, &[9, 9, 9, 7, 7, 7]);
    insta::assert_snapshot!(sentence(&layers_only), @"No module type needed more than another (mean rank 8.0 → 8.0 in each). Among layers, layer 0 gained most (3 ranks).");
}

#[test]
fn the_sentence_fits_other_models() {
    let one = MadeRun::ending(named(&["head"]), 8, &[6]);
    insta::assert_snapshot!(sentence(&one), @"The one adapter, head, went from rank 8 to 6.");

    let flat = MadeRun::ending(named(&["encoder", "hidden", "head"]), 4, &[2, 6, 4]);
    insta::assert_snapshot!(sentence(&flat), @"Most adaptation was needed in hidden (mean rank 4.0 → 6.0), least in encoder (4.0 → 2.0).");

    let one_type = MadeRun::ending(
        named(&["blocks.0.w", "blocks.1.w", "blocks.2.w"]),
        4,
        &[3, 5, 4],
    );
    insta::assert_snapshot!(sentence(&one_type), @"All adapters are of one module type, w (mean rank 4.0 → 4.0). Among layers, layer 1 gained most (1 rank).");

    let experts = named(&["layers.0.experts.0.w", "layers.0.experts.1.w"]);
    insta::assert_snapshot!(sentence(&MadeRun::ending(experts, 4, &[3, 5])), @"Most adaptation was needed in experts.1.w (mean rank 4.0 → 5.0), least in experts.0.w (4.0 → 3.0).");

    let many: Vec<String> = (0..6).map(|index| format!("m{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let tied = MadeRun::ending(named(&many), 4, &[5, 5, 5, 5, 2, 2]);
    insta::assert_snapshot!(sentence(&tied), @"Most adaptation was needed in m0 (mean rank 4.0 → 5.0), m1 (4.0 → 5.0), m2 (4.0 → 5.0) and 1 other module type, least in m4 (4.0 → 2.0) and m5 (4.0 → 2.0).");
}

#[test]
fn a_run_that_was_cut_off_is_told_as_far_as_it_went() {
    let mut run = MadeRun::small();
    run.complete = false;
    run.updates.truncate(2);
    let dir = folder(&run);
    append(
        &dir.path().join("metrics.jsonl"),
        "{\"step\": 23, \"loss\": 4.",
    );
    append(
        &dir.path().join("ranks.jsonl"),
        "{\"step\": 30, \"ranks\": [4, 1\u{e9}",
    );
    let record = RunRecord::read(dir.path()).unwrap();
    assert!(!record.is_complete());
    assert_eq!((record.steps.len(), record.updates.len()), (22, 2));
    insta::assert_snapshot!(summary(&record), @r"
    The run has no end, with 22 of 40 steps written: it was cut off, or it still goes on.
    metrics.jsonl ends in half a line (line 24), which was left out.
    ranks.jsonl ends in half a line (line 4), which was left out.

    eval loss   5.0000, before training
    perplexity  148.41, before training
    training    11 s, 22 steps, 0.50 s each
    speed       200 tokens/s, 2,200 tokens
    memory      200 MB at its peak
    parameters  1,968 → 2,208 in adapters

    ranks after 2 updates (change from the start)
    layer     q_proj     k_proj    up_proj
        0          4     2 (-2)     5 (+1)
        1          4     3 (-1)     5 (+1)
        2          4     2 (-2)     6 (+2)
        3          4     3 (-1)     6 (+2)
     mean        4.0        2.5        5.5
    total 48 → 48 ranks, 6 moved

    Up to step 22, where the record ends: most adaptation was needed in up_proj (mean rank 4.0 →
    5.5), least in k_proj (4.0 → 2.5). Among layers, layer 3 gained most (1 rank).
    ");
    let files = write_report(&record, dir.path()).unwrap();
    let page = fs::read_to_string(&files[0]).unwrap();
    assert!(page.contains("The run has no end, with 22 of 40 steps written"));
}

#[test]
fn a_run_that_was_cut_off_at_once_has_a_report() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), "").unwrap();
    let record = RunRecord::read(dir.path()).unwrap();
    insta::assert_snapshot!(summary(&record), @r"
    The run has no end, with 0 steps written: it was cut off, or it still goes on.
    There is no ranks.jsonl, so nothing is known of ranks.

    The run wrote no adapters, so it does not tell where adaptation was needed.
    ");
    assert_eq!(write_report(&record, dir.path()).unwrap().len(), 2);

    let mut run = MadeRun::small();
    run.updates = vec![(10, vec![])];
    run.write(dir.path());
    let ranks = fs::read_to_string(dir.path().join("ranks.jsonl")).unwrap();
    fs::write(
        dir.path().join("ranks.jsonl"),
        ranks.lines().next().unwrap(),
    )
    .unwrap();
    fs::write(
        dir.path().join("metrics.jsonl"),
        "{\"step\": 1, \"loss\": null}\n",
    )
    .unwrap();
    let record = RunRecord::read(dir.path()).unwrap();
    assert!(record.steps[0].loss.is_nan());
    assert_eq!(most_adapted(&record).movement, Movement::NotReached);
    insta::assert_snapshot!(most_adapted(&record), @"Up to step 1, where the record ends: no rank update was reached, so the run does not tell where adaptation was needed.");
    assert_eq!(write_report(&record, dir.path()).unwrap().len(), 6);
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    let dir = folder(&MadeRun::small());
    let path = dir.path();
    let metrics = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let ranks = fs::read_to_string(path.join("ranks.jsonl")).unwrap();

    insta::assert_snapshot!(error_of(&path.join("nowhere")), @"DIR: there is no such folder; name the output folder of a run");

    let damaged = metrics.replacen("\"step\":3,", "\"step\":,", 1);
    fs::write(path.join("metrics.jsonl"), damaged).unwrap();
    insta::assert_snapshot!(error_of(path), @"DIR/metrics.jsonl, line 4: no JSON (expected value at column 9); correct the line or delete it");

    fs::write(
        path.join("metrics.jsonl"),
        metrics.clone() + "{\"epoch\": 1}\n",
    )
    .unwrap();
    insta::assert_snapshot!(error_of(path), @"DIR/metrics.jsonl, line 43: neither a step (`loss`) nor an evaluation (`eval_loss`)");

    fs::write(
        path.join("metrics.jsonl"),
        metrics.replacen("\"step\":3,", "", 1),
    )
    .unwrap();
    insta::assert_snapshot!(error_of(path), @"DIR/metrics.jsonl, line 4: not a step: missing field `step`");
    fs::write(path.join("metrics.jsonl"), metrics).unwrap();

    let short = ranks.replacen("\"ranks\":[4,3,", "\"ranks\":[", 1);
    fs::write(path.join("ranks.jsonl"), short).unwrap();
    insta::assert_snapshot!(error_of(path), @"DIR/ranks.jsonl, line 2: `ranks` has 10 entries, and the run has 12 adapters (line 1); was the file put together from two runs?");

    let headless: String = ranks
        .lines()
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(path.join("ranks.jsonl"), headless).unwrap();
    insta::assert_snapshot!(error_of(path), @"DIR/ranks.jsonl, line 1: not the start of the run: missing field `steps`");

    let last = ranks.lines().last().unwrap();
    fs::write(path.join("ranks.jsonl"), format!("{ranks}{last}\n")).unwrap();
    insta::assert_snapshot!(error_of(path), @"DIR/ranks.jsonl, line 6: a line after the run's last one (`final`)");

    fs::remove_file(path.join("metrics.jsonl")).unwrap();
    insta::assert_snapshot!(error_of(path), @"DIR: no metrics.jsonl in it, so it is not the output folder of a run; name the folder that the run wrote to");
}

#[test]
fn what_cannot_be_written_is_named() {
    let dir = folder(&MadeRun::small());
    let record = RunRecord::read(dir.path()).unwrap();
    fs::write(dir.path().join("report"), "a file").unwrap();
    let error = write_report(&record, dir.path()).unwrap_err();
    assert!(
        matches!(&error, TrainError::Io { path, .. } if path.ends_with("report")),
        "{error}"
    );
}

#[test]
fn run_json_is_read_leniently() {
    let dir = folder(&MadeRun::small());
    fs::write(
        dir.path().join("run.json"),
        "{\"model\": 3, \"tokens\": \"many\", \"device\": \"flex\", \"before\": {\"loss\": 1}, \"train\": 7}",
    )
    .unwrap();
    let record = RunRecord::read(dir.path()).unwrap();
    assert_eq!(record.info.device.as_deref(), Some("flex"));
    assert_eq!(
        (record.info.model, record.info.tokens, record.info.before),
        (None, None, None)
    );
    assert!(record.info.train.is_empty());
    fs::write(dir.path().join("run.json"), "{\"model\":").unwrap();
    let record = RunRecord::read(dir.path()).unwrap();
    assert!(
        record.notes[0].starts_with("run.json is no JSON"),
        "{:?}",
        record.notes
    );
}

#[test]
fn the_page_and_the_pictures_are_written() {
    let dir = TempDir::new().unwrap();
    let run = MadeRun::small();
    run.write_all(dir.path());
    let record = RunRecord::read(dir.path()).unwrap();
    let files = write_report(&record, dir.path()).unwrap();
    let names: Vec<&str> = files
        .iter()
        .map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap())
        .collect();
    let pictures = ["loss", "ranks", "modules", "gates", "parameters"];
    assert_eq!(names[0], "report.html");
    assert_eq!(
        names[1..],
        pictures.map(|name| format!("report/{name}.svg"))
    );
    let page = fs::read_to_string(&files[0]).unwrap();
    for (index, rank) in run.updates[2].1.iter().enumerate() {
        let module = ["q_proj", "k_proj", "up_proj"][index % 3];
        let cell = format!(
            "data-layer=\"{}\" data-module=\"{module}\" data-rank=\"{rank}\"",
            index / 3
        );
        let picture = fs::read_to_string(&files[2]).unwrap();
        assert!(page.contains(&cell), "{cell}");
        assert!(picture.contains(&cell), "{cell}");
    }
    for text in [
        "org&#x2f;tiny",
        "2026-11-24 10:00:00 UTC",
        "flex, f32",
        "148.41",
        "# how to launch",
        "101.25",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // Nothing is loaded from anywhere.
    for text in [
        " src=",
        "href=\"http",
        "@import",
        "url(",
        "<link",
        "{{",
        "{%",
    ] {
        assert!(!page.contains(text), "{text}");
    }
}

#[test]
fn names_and_recipe_are_only_text() {
    let evil = "</script><img src=x onerror=alert(1)>";
    let path = format!("model.layers.0.{evil}");
    let run = MadeRun::ending(named(&[&path, "model.layers.0.q\"'&"]), 4, &[5, 3]);
    let dir = TempDir::new().unwrap();
    run.write_all(dir.path());
    fs::write(dir.path().join("recipe.toml"), format!("# {evil}\n")).unwrap();
    fs::write(
        dir.path().join("run.json"),
        serde_json::json!({"model": evil, "train": {evil: evil}}).to_string(),
    )
    .unwrap();
    let record = RunRecord::read(dir.path()).unwrap();
    for file in write_report(&record, dir.path()).unwrap() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("<img"), "{}", file.display());
        let scripts = if file.ends_with("report.html") { 2 } else { 0 };
        assert_eq!(
            text.matches("</script").count(),
            scripts,
            "{}",
            file.display()
        );
    }
}

#[test]
fn the_page_of_a_long_run_is_small() {
    let dir = TempDir::new().unwrap();
    let mut run = MadeRun::small();
    run.adapters = llama(80);
    run.updates = (1..=20)
        .map(|update| (update * 4, vec![4 + update % 3; 240]))
        .collect();
    run.steps = 100_000;
    run.write(dir.path());
    let metrics = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 100_002);
    // One spike, which thinning must not lose.
    let line = metrics.lines().nth(54_321).unwrap();
    let mut spike: serde_json::Value = serde_json::from_str(line).unwrap();
    spike["loss"] = 77.5.into();
    fs::write(
        dir.path().join("metrics.jsonl"),
        metrics.replacen(line, &spike.to_string(), 1),
    )
    .unwrap();
    let record = RunRecord::read(dir.path()).unwrap();
    let files = write_report(&record, dir.path()).unwrap();
    let page = fs::read_to_string(&files[0]).unwrap();
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(page.contains(",77.5,"));
}

#[test]
fn many_updates_are_written_as_changes() {
    let dir = TempDir::new().unwrap();
    let mut run = MadeRun::small();
    run.adapters = llama(32);
    run.steps = 1000;
    run.updates = (1..=500)
        .map(|update| {
            let mut ranks = vec![4; 96];
            ranks[update % 96] = 5;
            (update * 2, ranks)
        })
        .collect();
    run.write(dir.path());
    let record = RunRecord::read(dir.path()).unwrap();
    let files = write_report(&record, dir.path()).unwrap();
    let page = fs::read_to_string(&files[0]).unwrap();
    assert!(page.len() < 500_000, "{} bytes", page.len());
    let mut strips = String::new();
    page.match_indices("data-moment=")
        .for_each(|(at, _)| write!(strips, "{} ", &page[at + 13..at + 16]).unwrap());
    assert_eq!(strips.split_whitespace().count(), 12, "{strips}");
}
