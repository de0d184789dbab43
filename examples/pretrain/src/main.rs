//! Makes the small model that lives in `examples/finetune/model`: a tokenizer and a Llama of 3 M
//! parameters, trained from nothing on public-domain text.
//!
//! ```text
//! cargo xtask corpus
//! cargo run --release -p pretrain -- --corpus target/corpus --output examples/finetune/model
//! ```
#![allow(clippy::print_stdout)] // A program: its output is the point.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use burn::{
    module::Module,
    optim::{AdamWConfig, GradientsParams},
    tensor::{Device, FloatDType, Int, Tensor, TensorData},
};
use clap::Parser;
use l1ra_models::ops::loss::cross_entropy_sum;
use l1ra_models::{
    CausalLm, ModelConfig,
    weights::{RandomWeights, Storage, build_model, save_weights},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainerBuilder},
    },
    pre_tokenizers::byte_level::ByteLevel as ByteLevelSplit,
};

const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + \
    '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Trains the small model of the repository from nothing.
#[derive(Parser)]
struct Options {
    /// Folder with the text files, as `cargo xtask corpus` makes it.
    #[arg(long, default_value = "target/corpus")]
    corpus: PathBuf,
    /// Text files to read, in order.
    #[arg(long, value_delimiter = ',', default_value = "kjv.txt,austen.txt")]
    files: Vec<String>,
    /// Where the model goes.
    #[arg(long, default_value = "target/small-model")]
    output: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Rows of a batch.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens of a row.
    #[arg(long, default_value_t = 256)]
    length: usize,
    /// Largest learning rate.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Seed of weights and batches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device.
    #[arg(long, default_value = "flex")]
    device: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let device = l1ra_core::open_device(&options.device)?;
    fs::create_dir_all(&options.output)?;

    let paths: Vec<PathBuf> = options
        .files
        .iter()
        .map(|f| options.corpus.join(f))
        .collect();
    let tokenizer = train_tokenizer(&paths)?;
    let tokens = tokenize(&tokenizer, &paths)?;
    let config = config();
    write_files(&tokenizer, &config, &options.output)?;
    let config = ModelConfig::from_value(Path::new("config.json"), config)?;

    let source = RandomWeights::new(&config, options.seed, 0.04);
    let model = build_model(&source, &config, Storage::F32, &device.clone().autodiff())?;
    let parameters = model.num_params();
    println!(
        "{parameters} parameters, {} tokens, {} steps",
        tokens.len(),
        options.steps
    );
    let model = train(model.set_require_grad(true), &tokens, &options, &device)?;
    save_weights(&model, FloatDType::F16, &options.output)?;
    println!("saved {}", options.output.display());
    Ok(())
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 4096,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": null,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "mlp_bias": false,
        "hidden_act": "silu",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float16",
        "use_cache": true
    })
}

fn train_tokenizer(paths: &[PathBuf]) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevelSplit::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
    let special = SPECIAL.map(|token| AddedToken::from(token, true).normalized(false));
    let mut alphabet: Vec<char> = ByteLevelSplit::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(4096)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(alphabet.into_iter().collect())
        .build();
    let texts: Vec<String> = paths.iter().map(|path| read(path)).collect::<Result<_>>()?;
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    let mut trainer = TrainerWrapper::from(trainer);
    tokenizer
        .train(&mut trainer, lines.into_iter())
        .map_err(|error| anyhow::anyhow!("training the tokenizer: {error}"))?;
    ensure!(
        tokenizer.get_vocab_size(true) == 4096,
        "the corpus is too small for 4096 tokens"
    );
    Ok(tokenizer)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .with_context(|| format!("{} (run `cargo xtask corpus` first)", path.display()))
}

/// All files as one row of ids, `<|endoftext|>` between files.
fn tokenize(tokenizer: &Tokenizer, paths: &[PathBuf]) -> Result<Vec<i64>> {
    let mut ids = Vec::new();
    for path in paths {
        ids.push(0);
        for paragraph in read(path)?.split_inclusive('\n') {
            let encoding = tokenizer
                .encode(paragraph, false)
                .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
            ids.extend(encoding.get_ids().iter().map(|id| i64::from(*id)));
        }
    }
    Ok(ids)
}

fn write_files(tokenizer: &Tokenizer, config: &Value, output: &Path) -> Result<()> {
    let save = |name: &str, value: &Value| fs::write(output.join(name), format!("{value:#}\n"));
    save("config.json", config)?;
    save(
        "generation_config.json",
        &json!({"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}),
    )?;
    save(
        "tokenizer_config.json",
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[0],
            "eos_token": SPECIAL[2],
            "pad_token": SPECIAL[0],
            "model_max_length": 512,
            "clean_up_tokenization_spaces": false,
            "chat_template": CHAT_TEMPLATE,
        }),
    )?;
    tokenizer
        .save(output.join("tokenizer.json"), false)
        .map_err(|error| anyhow::anyhow!("saving the tokenizer: {error}"))
}

/// Linear warm-up over the first 5 %, then a cosine to a tenth.
fn learning_rate(step: usize, options: &Options) -> f64 {
    let warmup = (options.steps / 20).max(1);
    if step < warmup {
        return options.lr * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (options.steps - warmup).max(1) as f64;
    options.lr * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

fn train(
    mut model: CausalLm,
    tokens: &[i64],
    options: &Options,
    device: &Device,
) -> Result<CausalLm> {
    let Options {
        batch,
        length,
        steps,
        ..
    } = *options;
    ensure!(
        tokens.len() > length + 1,
        "the corpus has fewer tokens than one row"
    );
    let mut optimizer = AdamWConfig::new()
        .with_beta_2(0.95)
        .with_epsilon(1e-8)
        .with_weight_decay(0.05)
        .with_grad_clipping(Some(burn::grad_clipping::GradientClippingConfig::Norm(1.0)))
        .init();
    let mut generator = ChaCha8Rng::seed_from_u64(options.seed);
    let started = Instant::now();
    for step in 0..steps {
        let mut inputs = Vec::with_capacity(batch * length);
        let mut targets = Vec::with_capacity(batch * length);
        for _ in 0..batch {
            let start = generator.random_range(0..tokens.len() - length - 1);
            inputs.extend_from_slice(&tokens[start..start + length]);
            targets.extend_from_slice(&tokens[start + 1..start + length + 1]);
        }
        let device = device.clone().autodiff();
        let inputs = Tensor::<2, Int>::from_data(TensorData::new(inputs, [batch, length]), &device);
        let targets =
            Tensor::<1, Int>::from_data(TensorData::new(targets, [batch * length]), &device);
        let logits = model.forward(inputs, None).flatten::<2>(0, 1); // [batch · length, vocabulary]
        let loss = cross_entropy_sum(logits, targets).div_scalar((batch * length) as f64);
        let value: f32 = loss.clone().into_scalar();
        ensure!(value.is_finite(), "the loss is {value} at step {step}");
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(learning_rate(step, options), model, grads);
        if step % 10 == 0 || step + 1 == steps {
            println!(
                "step {step:5}  loss {value:.4}  {:.0} s",
                started.elapsed().as_secs_f64()
            );
        }
        if (step + 1) % 200 == 0 {
            save_weights(&model, FloatDType::F16, &options.output)?;
        }
    }
    Ok(model)
}
