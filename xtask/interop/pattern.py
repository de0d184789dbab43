"""What `l1ra report DIR --rank-pattern peft` prints, trained with in PEFT.

usage: pattern.py --model DIR --pattern FILE [--steps 5]

FILE holds the JSON. Exit code 1 when PEFT adapts other modules than `target_modules`, builds another
rank than `rank_pattern` says, scales a module by something other than alpha_i / r_i, or the loss on
one batch does not fall.
"""
import argparse
import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
warnings.filterwarnings("ignore", category=FutureWarning)

import peft
import torch
import transformers

ADAPTER = "default"
PREFIX = "base_model.model."


def adapted(model):
    """Path to rank and scale of every module that PEFT adapted."""
    modules = model.named_modules()
    layers = {name: m for name, m in modules if isinstance(m, peft.tuners.lora.LoraLayer)}
    return {
        name.removeprefix(PREFIX): (layer.r[ADAPTER], layer.scaling[ADAPTER])
        for name, layer in layers.items()
    }


def wanted(pattern):
    """The same as the pattern says it."""
    key = lambda path: path.replace(".", r"\.")
    rank = {path: pattern["rank_pattern"][key(path)] for path in pattern["target_modules"]}
    alpha = {path: pattern["alpha_pattern"][key(path)] for path in pattern["target_modules"]}
    return {path: (rank[path], alpha[path] / rank[path]) for path in rank}


def train(model, steps):
    """Losses of a few steps on one batch."""
    ids = torch.randint(3, model.config.vocab_size, (4, 24))  # [batch, seq]
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=5e-3)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pattern", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)

    print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    pattern = json.loads(arguments.pattern.read_text())
    base = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **pattern))

    seen, expected = adapted(model), wanted(pattern)
    failed = seen.keys() != expected.keys()
    if failed:
        print(f"FAILED: other modules: {sorted(seen.keys() ^ expected.keys())}")
    for path in sorted(seen.keys() & expected.keys()):
        (rank, scale), (want, factor) = seen[path], expected[path]
        if rank != want or abs(scale - factor) > 1e-6 * abs(factor):
            print(f"FAILED: {path} has rank {rank} and scale {scale}, not {want} and {factor}")
            failed = True
    ranks = [rank for rank, _ in seen.values()]
    scales = sorted({round(scale, 5) for _, scale in seen.values()})
    losses = train(model, arguments.steps)
    falls = losses[-1] < losses[0]
    failed |= not falls
    print(f"{len(seen)} modules, ranks {min(ranks)}-{max(ranks)}, scales {scales}")
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps  {'ok' if falls else 'FAILED'}")
    print("FAILED" if failed else "ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
