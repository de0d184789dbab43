"""Our adapter files, read by PEFT, against the logits of the program that wrote them.

usage: compare.py --model DIR --adapters DIR [--tolerance 1e-4]

DIR of --adapters holds `logits.safetensors` (`input_ids` i64 [1, seq], `logits` f32
[1, seq, vocab]) and one PEFT adapter folder per lay-out. Exit code 1 when a lay-out is missing or
its logits differ by more than the tolerance, or when the adapter changes nothing.
"""
import argparse
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
from safetensors.torch import load_file

LAYOUTS = ["exact", "folded", "padded"]


def load_base(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def logits_of(model, input_ids):
    with torch.no_grad():
        return model(input_ids).logits  # [1, seq, vocab]


def ranks_of(model):
    """The rank of every adapted module, as PEFT built it."""
    modules = (m for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer))
    return sorted(rank for module in modules for rank in module.r.values())


def compare(model_folder, adapter_folder, expected):
    """Largest differences of the logits: adapter on, adapter merged into the base."""
    model = peft.PeftModel.from_pretrained(load_base(model_folder), adapter_folder).eval()
    ranks = ranks_of(model)
    active = (logits_of(model, expected["input_ids"]) - expected["logits"]).abs().max().item()
    merged = model.merge_and_unload().eval()
    merged = (logits_of(merged, expected["input_ids"]) - expected["logits"]).abs().max().item()
    return active, merged, ranks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()

    print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    expected = load_file(arguments.adapters / "logits.safetensors")
    base = logits_of(load_base(arguments.model), expected["input_ids"])
    change = (base - expected["logits"]).abs().max().item()
    print(f"the adapter changes the base's logits by at most {change:.3e}")
    failed = not change > arguments.tolerance
    if failed:
        print("FAILED: an adapter that changes nothing proves nothing")
    print(f"{'lay-out':8} {'max |difference|':>17} {'merged':>10}  ranks")
    for layout in LAYOUTS:
        folder = arguments.adapters / layout
        if not (folder / "adapter_config.json").is_file():
            print(f"{layout:8} FAILED: no adapter in {folder}")
            failed = True
            continue
        active, merged, ranks = compare(arguments.model, folder, expected)
        within = max(active, merged) <= arguments.tolerance  # false for NaN too
        failed |= not within
        spread = f"{len(ranks)} modules, {min(ranks)}-{max(ranks)}" if ranks else "none"
        verdict = "ok" if within else f"FAILED: over {arguments.tolerance:g}"
        print(f"{layout:8} {active:17.3e} {merged:10.3e}  {spread}  {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
