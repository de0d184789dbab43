//! `cargo xtask bench`: our steps beside PyTorch's, alternating, on this machine.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// What is run: a name, who runs it, and the options of both programs.
struct Run {
    name: &'static str,
    ours: bool,
    weights: Weights,
    options: &'static [&'static str],
}

/// What weights a program gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weights {
    /// The model's own.
    Read,
    /// Drawn ones of its shape, with so many times its vocabulary.
    Drawn { vocabularies: u64 },
}

const fn ours(name: &'static str, options: &'static [&'static str]) -> Run {
    Run {
        name,
        ours: true,
        weights: Weights::Read,
        options,
    }
}

const fn torch(name: &'static str, options: &'static [&'static str]) -> Run {
    Run {
        name,
        ours: false,
        weights: Weights::Read,
        options,
    }
}

const fn drawn(name: &'static str, vocabularies: u64, options: &'static [&'static str]) -> Run {
    Run {
        name,
        ours: true,
        weights: Weights::Drawn { vocabularies },
        options,
    }
}

/// The step that everything is about, without options that change it.
const L1RA: &str = "l1ra, L1RA";

/// Rows of the table; runs of one row follow each other, and the whole is repeated.
const ROWS: &[(&str, &[Run])] = &[
    (
        "training, f32, 4 × 256",
        &[
            torch("PEFT LoRA", &["--method", "lora"]),
            ours("l1ra, LoRA", &["--method", "lora"]),
            ours(L1RA, &["--method", "l1ra"]),
            ours(
                "l1ra, L1RA, recompute",
                &["--method", "l1ra", "--recompute"],
            ),
            ours(
                "l1ra, L1RA, 20 % targets",
                &["--method", "l1ra", "--targets", "0.2"],
            ),
        ],
    ),
    (
        "training, f32, 4 × 512",
        &[
            torch("PEFT LoRA", &["--method", "lora", "--seq", "512"]),
            ours(L1RA, &["--method", "l1ra", "--seq", "512"]),
        ],
    ),
    (
        "training, f32, 1 × 2048",
        &[ours(
            L1RA,
            &["--method", "l1ra", "--seq", "2048", "--batch", "1"],
        )],
    ),
    (
        "training, bf16 base, 4 × 256",
        &[
            torch("PEFT LoRA", &["--method", "lora", "--dtype", "bf16"]),
            ours(L1RA, &["--method", "l1ra", "--dtype", "bf16"]),
            ours(
                "l1ra, L1RA, recompute",
                &["--method", "l1ra", "--dtype", "bf16", "--recompute"],
            ),
        ],
    ),
    (
        "training, f32, 4 × 256, drawn weights",
        &[
            drawn(L1RA, 1, &["--method", "l1ra"]),
            drawn("l1ra, L1RA, twice the vocabulary", 2, &["--method", "l1ra"]),
        ],
    ),
    (
        "training, bf16 base, 4 × 256, drawn weights",
        &[
            drawn(L1RA, 1, &["--method", "l1ra", "--dtype", "bf16"]),
            drawn(
                "l1ra, L1RA, twice the vocabulary",
                2,
                &["--method", "l1ra", "--dtype", "bf16"],
            ),
        ],
    ),
    (
        "forward, f32, 4 × 256",
        &[
            torch("PyTorch", &["--method", "forward"]),
            ours("l1ra", &["--method", "forward"]),
        ],
    ),
    (
        "generation, f32, after 32 tokens",
        &[
            torch(
                "transformers generate",
                &["--method", "generate", "--seq", "32", "--steps", "32"],
            ),
            ours(
                "l1ra",
                &["--method", "generate", "--seq", "32", "--steps", "32"],
            ),
        ],
    ),
    (
        "generation, bf16 weights, after 32 tokens",
        &[
            torch("transformers generate", GENERATE_BF16),
            ours("l1ra", GENERATE_BF16),
        ],
    ),
];

const GENERATE_BF16: &[&str] = &[
    "--method", "generate", "--seq", "32", "--steps", "32", "--dtype", "bf16",
];

/// The rows for this machine. PyTorch's bf16 is left out on a CPU without instructions for it: there a
/// step takes minutes.
fn rows() -> Vec<(&'static str, Vec<&'static Run>)> {
    #[cfg(target_arch = "x86_64")]
    let native = std::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let native = false;
    let measured = |run: &&Run| native || run.ours || !run.options.contains(&"bf16");
    ROWS.iter()
        .map(|(title, runs)| (*title, runs.iter().filter(measured).collect()))
        .collect()
}

/// Runs the table and writes it.
pub(crate) fn run(
    model: &Path,
    python: &Path,
    threads: usize,
    repeats: usize,
    output: &Path,
) -> Result<()> {
    ensure!(
        model.is_dir(),
        "{}: not a Hugging Face folder",
        model.display()
    );
    ensure!(repeats > 0, "--runs 0: at least 1");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new("cargo")
        .args(["build", "--release", "-p", "l1ra-cli"])
        .current_dir(&root)
        .status()?;
    ensure!(built.success(), "the program was not built");
    let program = root.join("target/release/l1ra");
    let script = root.join("xtask/bench/bench_torch.py");
    let shapes = root.join("target/bench");
    std::fs::create_dir_all(&shapes)
        .with_context(|| format!("{} could not be made", shapes.display()))?;
    let mut lines: BTreeMap<(usize, usize), Vec<Value>> = BTreeMap::new();
    for repeat in 0..repeats {
        for (row, (title, runs)) in rows().into_iter().enumerate() {
            for (place, run) in runs.into_iter().enumerate() {
                println!("run {} of {repeats}: {title}, {}", repeat + 1, run.name);
                let mut command = if run.ours {
                    let mut command = Command::new(&program);
                    command.args(["bench", "--json", "--quiet"]);
                    command
                } else {
                    let mut command = Command::new(python);
                    command.arg(&script);
                    command
                };
                let what = match run.weights {
                    Weights::Read => model.to_path_buf(),
                    Weights::Drawn { vocabularies } => shape(model, vocabularies, &shapes)?,
                };
                command.arg("--model").arg(what);
                command.args(["--threads", &threads.to_string(), "--warmup", "1"]);
                if !run.options.contains(&"--steps") {
                    command.args(["--steps", "3"]);
                }
                command.args(run.options);
                lines.entry((row, place)).or_default().push(line(command)?);
            }
        }
    }
    std::fs::write(output, page(&lines, repeats, threads))
        .with_context(|| format!("{}: could not be written", output.display()))?;
    println!("{}", output.display());
    Ok(())
}

/// A file with the model's configuration, its vocabulary so many times as large.
fn shape(model: &Path, vocabularies: u64, folder: &Path) -> Result<PathBuf> {
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let mut config: Value =
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    let words = config["vocab_size"]
        .as_u64()
        .with_context(|| format!("{}: no vocab_size", path.display()))?;
    config["vocab_size"] = (words * vocabularies).into();
    let file = folder.join(format!("{vocabularies}.json"));
    std::fs::write(&file, config.to_string())
        .with_context(|| format!("{} could not be written", file.display()))?;
    Ok(file)
}

/// The last line that a program prints, which is JSON.
fn line(mut command: Command) -> Result<Value> {
    let out = command
        .output()
        .with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    if !out.status.success() {
        bail!(
            "{command:?} failed:\n{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{command:?} printed {last:?}"))
}

fn median(lines: &[Value], key: &str) -> f64 {
    let mut values: Vec<f64> = lines.iter().filter_map(|line| line[key].as_f64()).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn page(lines: &BTreeMap<(usize, usize), Vec<Value>>, repeats: usize, threads: usize) -> String {
    let mut text = String::from(
        "| | s a step | tokens/s | against PyTorch | peak MiB | against PyTorch |\n\
         |---|---|---|---|---|---|\n",
    );
    for (row, (title, runs)) in rows().into_iter().enumerate() {
        let _ = writeln!(text, "| **{title}** | | | | | |");
        let of = |place: usize, key| median(&lines[&(row, place)], key);
        for (place, run) in runs.iter().enumerate() {
            let [step, speed, peak] =
                ["median_step_s", "tokens_per_s", "peak_rss_mb"].map(|key| of(place, key));
            let ratios = if run.ours && !runs[0].ours {
                [
                    format!("{:.2} ×", speed / of(0, "tokens_per_s")),
                    format!("{:.2} ×", peak / of(0, "peak_rss_mb")),
                ]
            } else {
                [String::new(), String::new()]
            };
            let [faster, smaller] = ratios;
            let _ = writeln!(
                text,
                "| {} | {step:.3} | {speed:.1} | {faster} | {peak:.0} | {smaller} |",
                run.name
            );
        }
    }
    text += "\n| from the start of the program, weights read | weights there | adapters there | end of the first step | a step |\n\
             |---|---|---|---|---|\n";
    for (row, (title, runs)) in rows().into_iter().enumerate() {
        for (place, run) in runs.iter().enumerate() {
            if run.name != L1RA || run.weights != Weights::Read {
                continue;
            }
            let of = |key| median(&lines[&(row, place)], key);
            let (load, setup) = (of("load_s"), of("setup_s"));
            let _ = writeln!(
                text,
                "| {title} | {load:.2} s | {:.2} s | {:.2} s | {:.2} s |",
                load + setup,
                load + setup + of("first_step_s"),
                of("median_step_s")
            );
        }
    }
    let torch = lines.values().flatten().find_map(|line| {
        line["impl"]
            .as_str()
            .filter(|name| name.starts_with("torch"))
            .map(String::from)
    });
    let _ = write!(
        text,
        "\nMedians of {repeats} runs of 3 steps (32 tokens when generating) after one, programs in turn, \
         {threads} threads; {}.\n",
        torch.unwrap_or_default()
    );
    text
}

/// Where the table goes unless told otherwise.
pub(crate) fn default_output() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/speed.md")
}
