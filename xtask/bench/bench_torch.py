"""One JSON line: speed of PyTorch on a Hugging Face causal LM, as `l1ra bench` measures ours.

  bench_torch.py --model DIR|config.json --method {lora,forward,generate} [--seq 256 --batch 4
                 --steps 10 --warmup 2 --threads 2 --dtype f32|bf16 --rank 16 --device cpu|cuda]

A config.json alone gives a model whose weights are drawn.

A training step is zero_grad, forward, backward, clipping, AdamW, with PEFT's LoRA on all linear
layers and every token a target. bf16: base weights and activations in bf16, adapters in f32 under
autocast. generate: greedy, with the cache, one text; a step is a token.
Needs torch, transformers, peft.
"""
import argparse, contextlib, json, os, resource, statistics, time

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True)
ap.add_argument("--method", required=True, choices=["lora", "forward", "generate"])
for name, value in dict(seq=256, batch=4, steps=10, warmup=2, threads=2, rank=16).items():
    ap.add_argument("--" + name, type=int, default=value)
ap.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
ap.add_argument("--checkpointing", action="store_true")
ap.add_argument("--device", default="cpu")
a = ap.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
os.environ["HF_HUB_OFFLINE"] = "1"
import torch, transformers

torch.set_num_threads(a.threads)
torch.manual_seed(0)
transformers.utils.logging.disable_progress_bar()
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
began = time.perf_counter()
if a.model.endswith(".json"):
    config = transformers.AutoConfig.from_pretrained(a.model)
    with torch.device(a.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
else:
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype, attn_implementation="sdpa")
model.to(a.device)
sync = torch.cuda.synchronize if a.device.startswith("cuda") else lambda: None
sync()
load_s = time.perf_counter() - began
vocabulary = model.config.vocab_size
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
loaded = peak()
generator = torch.Generator().manual_seed(0)
draw = lambda rows: torch.randint(0, vocabulary, (rows, a.seq), generator=generator).to(a.device)
cast = contextlib.nullcontext
if a.dtype == "bf16" and a.method == "lora":
    cast = lambda: torch.autocast(a.device.split(":")[0], dtype=torch.bfloat16)
times, loss, trainable = [], None, 0

if a.method == "lora":
    from peft import LoraConfig, get_peft_model
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=a.rank, lora_alpha=a.rank,
                                             lora_dropout=0.0, target_modules="all-linear"))
    if a.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    trained = [p for p in model.parameters() if p.requires_grad]
    trainable = sum(p.numel() for p in trained)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    model.train()
else:
    model.eval()

if a.method == "generate":
    prompt = draw(1)
    with torch.no_grad():
        model.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        for _ in range(3):
            total = []
            for new in (a.warmup, a.warmup + a.steps):
                began = time.perf_counter()
                model.generate(prompt, max_new_tokens=new, min_new_tokens=new, do_sample=False)
                sync()
                total.append(time.perf_counter() - began)
            times.append((total[1] - total[0]) / a.steps)
    tokens = 1
else:
    for step in range(a.warmup + a.steps):
        ids = draw(a.batch)
        sync()
        began = time.perf_counter()
        if a.method == "forward":
            with torch.no_grad():
                model(input_ids=ids, use_cache=False).logits
        else:
            optimizer.zero_grad(set_to_none=True)
            with cast():
                out = model(input_ids=ids, labels=ids).loss
            out.backward()
            loss = float(out.detach())
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        sync()
        times.append(time.perf_counter() - began)
    times = times[a.warmup:]
    tokens = a.batch * a.seq
median = statistics.median(times)
print(json.dumps({
    "impl": "torch " + torch.__version__, "method": a.method, "dtype": a.dtype, "seq": a.seq,
    "batch": 1 if a.method == "generate" else a.batch, "threads": a.threads, "r": a.rank,
    "checkpointing": a.checkpointing, "steps": len(times), "trainable": trainable,
    "median_step_s": median, "min_step_s": min(times), "max_step_s": max(times),
    "tokens_per_s": tokens / median, "rss_after_load_mb": loaded, "peak_rss_mb": peak(),
    "device": a.device, "load_s": load_s, "loss": loss,
    "device_mb": torch.cuda.max_memory_reserved() >> 20 if a.device.startswith("cuda") else None}))
