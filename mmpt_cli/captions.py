"""Remove repetitions from captions, and turn them into token shards.

    mmpt captions dedup data/how2/raw_caption.json data/how2/raw_caption_dedup.pkl
    mmpt captions tokens tokens.yaml
    mmpt captions tokens --captions data/how2/sentencified_htm_1200k.pkl \\
        --tokenizer bert-base-uncased --out data/feat/shards

Captions are files or folders of SRT, WebVTT, YouTube's json3 and timed text, Whisper or WhisperX JSON, CSV or
JSON lines of video_id, start, end, text, or HowTo100M's {video id: {"start": [...], "end": [...], "text":
[...]}} as JSON or pickle. `dedup` writes the pickle that pre-training reads. `tokens` writes shards for each
train_meta.pkl and val_meta.pkl of the feature shards in --out; its YAML holds `dataset:` with bert_name,
caption_pkl_path, target_dir and, if wanted, use_fast; options overrule it. Stopped in the middle, the same
command goes on. Captions out of order are put in order; impossible times are an error, or left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mmpt_cli.options import Parser, count, speak

NAMED = 5


def parser() -> Parser:
    """The options."""
    p = Parser("mmpt captions", __doc__)
    verb = p.verbs()
    dedup = verb("dedup", "remove what rolling captions repeat")
    dedup.add_argument("captions", type=Path, help="file or folder of captions")
    dedup.add_argument("output", type=Path, help="pickle to write")
    dedup.add_argument("--plain", action="store_true", help="convert only, remove nothing")
    dedup.add_argument("--compat", action="store_true", help="the released rule, letter by letter")
    dedup.add_argument("--seed", type=int, default=0, help="of the choice which caption keeps an overlap")
    tokens = verb("tokens", "timed captions to token shards")
    tokens.add_argument("config", nargs="?", metavar="FILE", help="YAML; options overrule it")
    tokens.add_argument("--captions", help="file or folder of timed captions")
    tokens.add_argument("--tokenizer", help="hub name, or folder with config.json and vocab.txt")
    tokens.shared("--out", help="folder of the feature shards, where the token shards go too")
    tokens.add_argument(
        "--columns", type=count, default=32, help="most tokens kept of a caption (%(default)s)"
    )
    for command in (dedup, tokens):
        command.add_argument(
            "--on-bad",
            choices=("error", "drop"),
            default="error",
            help="captions whose end is before their start, or whose times are no numbers (%(default)s)",
        )
    return p


def _tell(what: str, found: Collection[str]) -> None:
    """How many videos a rule concerns, and some of them."""
    if found:
        print(f"{len(found)} videos with {what}: {', '.join(list(found)[:NAMED])}")


def main(argv: Sequence[str] | None = None) -> None:
    """Do it."""
    p = parser()
    args = p.parse_args(argv)
    speak()
    if args.command == "dedup":
        from mmpt.processors.captions.dedup import dedup_file

        words = args.captions, args.output, args.plain, args.compat, args.seed, args.on_bad
        kept = dedup_file(*words)
        _tell("captions out of order, now sorted", kept.unsorted)
        _tell("impossible captions left out", kept.dropped)
        print(f"{args.output}: {kept.videos} videos, {kept.before} captions -> {kept.after}")
        return
    from mmpt.config import DatasetConfig, load_config
    from mmpt.processors.captions.shards import tokenize_captions

    said = load_config(args.config).dataset if args.config else DatasetConfig()
    source, bert = args.captions or said.caption_pkl_path, args.tokenizer or said.bert_name
    target = args.out or said.target_dir
    if not (source and bert and target):
        p.error("needs captions, tokenizer and a folder, from the YAML or as options")
    done = tokenize_captions(Path(source), bert, Path(target), args.columns, said.use_fast, args.on_bad)
    _tell("captions out of order, now sorted", done.unsorted)
    _tell("impossible captions left out", done.dropped)
    _tell("captions behind the end of their features", done.behind)
    for name, (n, without) in done.written.items():
        some = without[:NAMED] if without else ""
        print(f"{name}: {n} shards; {len(without)} videos without captions {some}".rstrip())
    for prefix in sorted({name.removesuffix("_*").rpartition(".")[0] for name in done.written}):
        print(f"in the project file: dataset.tfeat_dir: {prefix}.")
