"""How the towers read a batch: padded, packed, sorted by length, in bfloat16, compiled.

    python benchmarks/towers.py                              # about two minutes
    python benchmarks/towers.py --clips 256 --layers 6 12    # video and text layers of the published model

Towers of BERT-base's width of which LayerNorms are trained, as Norton does. Lengths of clips are drawn as the
pre-training file has them drawn (3 to 16 seconds, 8 to 32 words and what the last caption adds, cut at 29).
Forward and backward, float32 if not said otherwise, one thread, dropout off; the ways take turns, CPU seconds
of the process are compared. The loss is a sum over valid positions, so that its cost does not count.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import command_line, each_time_another, interleaved, publish
from mmpt.config.schema import Config, DatasetConfig, ModelConfig
from mmpt.models import build_model
from mmpt.models.batching import compile_towers, forward_by_length, pack_towers
from mmpt.models.bert import BertConfig
from mmpt.models.mmfusion import MMFusion

SECONDS, COLUMNS, SPECIAL = 16, 32, 3
WORDS_OF_A_CAPTION = 12


def make_model(layers: list[int]) -> MMFusion:
    """Two towers with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        BertConfig(num_hidden_layers=layers[1], **no_dropout).save(folder)
        config = Config(
            dataset=DatasetConfig(bert_name=folder, max_video_len=SECONDS, max_len=SECONDS + COLUMNS),
            model=ModelConfig(
                model_cls="MMFusionSeparate",
                video_encoder_cls="MMBertForEncoder",
                text_encoder_cls="BertModel",
                num_hidden_video_layers=layers[0],
                init="random",
                layernorm_only=True,
            ),
        )
        return build_model(config).train()


def make_batch(clips: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Clips of drawn lengths."""
    seconds = torch.randint(3, SECONDS + 1, (clips, 1), generator=generator)
    words = torch.randint(8, 33, (clips, 1), generator=generator) + torch.randint(
        0, WORDS_OF_A_CAPTION, (clips, 1), generator=generator
    )
    return {
        "caps": torch.randint(1000, 30000, (clips, COLUMNS), generator=generator),
        "cmasks": torch.arange(COLUMNS) < (words + SPECIAL).clamp(max=COLUMNS),
        "vfeats": torch.randn(clips, SECONDS, 512, generator=generator),
        "vmasks": torch.arange(SECONDS) < seconds,
    }


def step(forward: Callable[..., dict[str, Tensor]], model: nn.Module, batch: dict[str, Tensor]) -> None:
    """Forward and backward."""
    model.zero_grad(set_to_none=True)
    outputs = forward(**batch)
    sum(
        outputs[f"{side}_outputs"][outputs[f"{side}_mask_outputs"]].sum() for side in ("video", "text")
    ).backward()


def measure(clips: int, layers: list[int], rounds: int, with_compile: bool) -> dict[str, float]:
    """Median CPU seconds of a step, each way."""
    generator = torch.Generator().manual_seed(0)
    model = make_model(layers)
    packed = make_model(layers)
    pack_towers(packed)
    half = torch.autocast("cpu", torch.bfloat16)  # as fairseq.common.bf16 has it
    ways = {
        "padded": model,
        "packed": packed,
        **{f"{n} buckets": functools.partial(forward_by_length, model, n) for n in (2, 4, 8)},
        "bfloat16": half(model.forward),
        "bfloat16, packed": half(packed.forward),
    }
    if with_compile:
        compiled = make_model(layers)
        compile_towers(compiled)
        ways["compiled"] = compiled
    models = {"packed": packed, "bfloat16, packed": packed, "compiled": ways.get("compiled")}
    batches = [make_batch(clips, generator) for _ in range(rounds + 1)]
    steps = {
        name: each_time_another(functools.partial(step, forward, models.get(name, model)), batches)
        for name, forward in ways.items()
    }
    return {name: cpu / 1e3 for name, (cpu, _) in interleaved(steps, rounds).items()}


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument(
        "--layers",
        type=int,
        nargs=2,
        default=[2, 4],
        metavar=("VIDEO", "TEXT"),
        help="default: a third of the published",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also compiled towers (a minute more)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch = make_batch(4096, torch.Generator().manual_seed(0))
    video, text = (
        (batch["vmasks"].sum(1) + 2).float().mean() / (SECONDS + 2),
        (batch["cmasks"].sum(1) - 1).float().mean() / (COLUMNS - 1),
    )
    results = measure(args.clips, args.layers, args.rounds, args.compile)
    rows = [[name, seconds, results["padded"] / seconds] for name, seconds in results.items()]
    title = (
        f"Towers, {args.clips} clips, {args.layers[0]} video and {args.layers[1]} text layers; "
        f"valid positions: video {video:.0%}, text {text:.0%}"
    )
    tables = {title: [["towers", "CPU seconds of a step", "padded / this"], *rows]}
    publish(args.record, tables, results, setting="1 thread")


if __name__ == "__main__":
    main()
