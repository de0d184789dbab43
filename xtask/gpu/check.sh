#!/usr/bin/env bash
# Everything that has to be seen on a real GPU, in one run of less than ten minutes. It needs no cargo: the
# programs lie beside it (`cargo xtask gpu-check --pack`).
#
#   check.sh REPOSITORY OUT DEVICE... [-- MODEL [PYTHON]]
#
# REPOSITORY holds recipes, fixtures and the small model; OUT takes a log of each part, and summary.md.
# With MODEL, a Hugging Face folder of SmolLM2-135M, the fine-tuning and the speed on it are seen as well;
# with PYTHON, one that has torch, transformers and peft, PyTorch is timed beside.
#
# PATIENCE=8 multiplies what each part may take: for a driver in software, which is no GPU.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
shift 2
devices=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
    devices+=("$1")
    shift
done
[ $# -gt 0 ] && shift
model=${1:-}
[ -n "$model" ] && model=$(cd "$model" && pwd)
python=${2:-}
case $python in
/*) ;;
*/*) python=$PWD/$python ;;
esac
failed=0
summary=$out/summary.md
# Debian and PyTorch bring libraries that the loader does not look for.
for folder in /usr/local/cuda/lib64 /usr/lib/x86_64-linux-gnu; do
    [ -d "$folder" ] && export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
done

say() { echo "$*" | tee -a "$summary"; }

# part NAME SECONDS COMMAND...: runs it, keeps its output, says how it ended.
part() {
    local name=$1 limit=$2 began=$SECONDS code
    shift 2
    timeout -k 5 $((limit * ${PATIENCE:-1})) "$@" >"$out/$name.txt" 2>"$out/$name.err.txt"
    code=$?
    [ $code -eq 0 ] || failed=$((failed + 1))
    say "| $name | $([ $code -eq 0 ] && echo ok || echo "failed ($code)") | $((SECONDS - began)) s |"
}

: >"$summary"
say "# On $(date -u +%Y-%m-%d)"
say ""
say '```text'
{
    uname -srm
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    nvidia-smi | sed -n 's/.*\(CUDA Version: [0-9.]*\).*/\1/p'
    ls -1 /usr/share/vulkan/icd.d /etc/vulkan/icd.d
} 2>/dev/null | tee -a "$summary"
say '```'
say ""
say "| part | | |"
say "|---|---|---|"

# Tests look for their fixtures where they were compiled.
compiled=$(cat "$here/repository")
if [ ! -e "$compiled" ]; then
    mkdir -p "$(dirname "$compiled")" && ln -s "$repository" "$compiled"
fi
cd "$repository" || exit 1


# The list for people goes to its errors.
part devices 60 "$here/l1ra" devices --json
for device in "${devices[@]}"; do
    for test in "$here"/tests/*; do
        L1RA_TEST_DEVICE=$device part "$device-$(basename "$test")" 150 "$test" --nocapture \
            --test-threads=1
    done
    part "$device-tiny" 120 "$here/l1ra" --json train recipes/tiny.toml --device "$device" \
        --plain --overwrite --output "$out/$device-tiny"
    if [ -n "$model" ]; then
        part "$device-smollm2" 180 "$here/l1ra" --json train recipes/smollm2-135m.toml \
            --model "$model" --device "$device" --plain --overwrite --output "$out/$device-smollm2"
    fi
done

# Kernels of ours beside Burn's operations, on the first device.
part "${devices[0]}-kernels" 60 "$here/rows" "${devices[0]}"

# Speed: ours and PyTorch's in turn, on the first device, in bf16 if it has that.
dtype=f32
grep -E "^${devices[0]}(:0)? .*\bbf16\b" "$out/devices.err.txt" >/dev/null && dtype=bf16
speed() { # NAME MODEL SEQ BATCH
    local name=$1 what=$2 sizes=(--seq "$3" --batch "$4" --dtype "$dtype" --steps 10 --warmup 3)
    if [ -n "$python" ]; then
        part "speed-$name-peft" 90 "$python" xtask/bench/bench_torch.py --model "$what" \
            --method lora --device cuda "${sizes[@]}"
    fi
    for method in lora l1ra; do
        part "speed-$name-$method" 90 "$here/l1ra" --json bench --model "$what" \
            --method "$method" --device "${devices[0]}" "${sizes[@]}"
    done
}
[ -n "$model" ] && speed smollm2-135m "$model" 512 16
speed llama-1b recipes/configs/llama-3.2-1b.json 1024 4

say ""
say "| speed, $dtype | tokens/s | memory of the GPU, MB |"
say "|---|---|---|"
for line in "$out"/speed-*.txt; do
    case $line in *.err.txt) continue ;; esac
    value() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p" "$line" | head -1; }
    say "| $(basename "$line" .txt) | $(value tokens_per_s) | $(value device_mb) |"
done
say ""
cat "$out"/*-kernels.txt | tee -a "$summary"
say ""
say "after training: $(cat "$out"/*-smollm2.txt "$out"/*-tiny.txt 2>/dev/null |
    sed -n 's/.*"after":{"loss":\([0-9.]*\).*/\1/p' | tr '\n' ' ')"
say ""
say "$failed parts failed; $SECONDS s in all"
[ "$failed" -eq 0 ]
