"""Describe every loss from the code's own words: `python -m scripts.docs.losses > docs/losses.md`.

Sentences, keys, defaults, formula, paper, cost and what is read come from the classes.
"""

from __future__ import annotations

import inspect
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

from mmpt.config import recursive_config
from mmpt.evaluators.report import markdown_table
from mmpt.losses import Loss, LossConfig, SumLoss
from mmpt.registry import LOSSES

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECTS = ROOT / "projects" / "toy"
FAMILIES = (  # in this order; a new one follows
    "Clips and captions",
    "Sequences",
    "Views and crops",
    "Tuples of modalities",
    "Sums",
    "Masked and generated tokens",
    "Labels",
)

INTRODUCTION = """# Losses

<!-- Generated: python -m scripts.docs.losses > docs/losses.md -->

`loss.loss_cls` in a project file names the loss; the other keys of `loss:` are its own. A file that includes
another and names another `loss_cls` starts with that loss's defaults:

```yaml
includes: projects/toy/norton.yaml
loss:
  loss_cls: TempCLRLoss
```

All losses read the same batch by name, have no parameters, compute in float32 or better whatever the
precision of their inputs, and name their terms for the log. An unknown key, sizes that do not divide and a
model that does not return what the loss reads are errors before the first update.
[compare_losses.md](compare_losses.md) trains them side by side.

Letters: N clips in the batch of a process, D width, L clips per sequence, V videos, K modalities besides the
anchor, t captions, v clips; `CE(scores)` is the mean cross entropy of each row against its own column. Cost
leaves out the encoders, which take most of the time."""

TENSORS = {
    "pooled_video, pooled_text": "(N, D) one vector a clip and a caption; further modalities are "
    "`pooled_<name>`",
    "video_outputs, text_outputs": "(N, seconds + 2, D), (N, words + 2, D) token states",
    "video_mask_outputs, text_mask_outputs": "bool, the same without D: tokens that are pooled",
    "logit_scale": "scalar, logarithm of the inverse temperature, from models with "
    "`model.learnable_temperature`",
    "clips_per_video": "number of consecutive rows that come from one video",
    "text_start, text_end": "(N,) caption indices of a clip's text, end exclusive",
    "video_start, video_end": "(N,) seconds of a clip, end exclusive",
    "view_valid": "(S*B,) bool, false where a view could not be made",
    "present": "modality -> (N,) bool, false where it is missing",
    "logits, targets": "scores of classes and what they should be; video_seq, sequence_targets, vmasks: "
    "see the loss",
    "video_logits, text_logits, text_label": "scores of masked frames and words, and the words themselves "
    "(-100: not masked)",
    "support, query, support_labels, query_labels": "an episode: frame features (videos, T, D) and classes",
    "crops, pooled_video_1, pooled_video_2": "crops by kind and version (n, B, D), and the two versions "
    "of the whole clip",
    "generator, num_updates": "random generator of drawn orders; number of the update",
}


def page() -> str:
    """The whole file."""
    examples = toy_files()
    parts = [INTRODUCTION, overview(examples)]
    for family, names in families().items():
        parts += [f"## {family}", *(section(name, examples.get(name, [])) for name in names)]
    tensors = [["name", "shape and meaning"], *([f"`{name}`", text] for name, text in TENSORS.items())]
    return "\n\n".join([*parts, "## What a batch holds", markdown_table(tensors)]) + "\n"


def families() -> dict[str, list[str]]:
    """Family -> names of its losses, plugins left out."""
    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in LOSSES.names():
        if LOSSES.get(name).__module__.startswith("mmpt."):
            found.setdefault(LOSSES.get(name).family, []).append(name)
    return found


def overview(examples: dict[str, list[str]]) -> str:
    """One line a loss."""
    rows = [["loss_cls", "in one sentence", "try it"]]
    for name in (name for names in families().values() for name in names):
        files = "<br>".join(f"`{path}`" for path in examples.get(name, []))
        rows.append([f"[{name}](#{name.lower()})", _cell(sentence(LOSSES.get(name))), files])
    return markdown_table(rows)


def section(name: str, examples: list[str]) -> str:
    """One loss."""
    cls = LOSSES.get(name)
    parts = [f"### {name}", _markdown(inspect.getdoc(cls)), f"```text\n{cls.formula}\n```"]
    lines = [f"- Paper: {cls.paper or 'none'}", f"- Reads: {reads(cls)}", f"- Cost: {cls.cost}"]
    if cls.note:
        lines.append(f"- {cls.note}")
    if examples:
        lines.append(f"- On the synthetic data: {', '.join(f'`{path}`' for path in examples)}")
    parts.append("\n".join(lines))
    keys = [["key", "default", "meaning", "symbol"], *key_rows(cls.Config)]
    parts.append(markdown_table(keys) if len(keys) > 1 else "No keys.")
    return "\n\n".join(parts)


def sentence(cls: type[Loss]) -> str:
    """The first sentence of a class."""
    first = inspect.getdoc(cls).split("\n\n")[0].replace("\n", " ")
    return first.split(". ")[0].rstrip(".") + "."


def reads(cls: type[Loss]) -> str:
    """Names that `forward` needs, and those it takes where they are there."""
    arguments = [a for a in inspect.signature(cls.forward).parameters.values() if a.kind is a.KEYWORD_ONLY]
    needed = [f"`{a.name}`" for a in arguments if a.default is a.empty]
    optional = [f"`{a.name}`" for a in arguments if a.default is not a.empty]
    text = ", ".join(needed) or (
        "what its parts read" if cls is SumLoss else "`pooled_<modality>` of what it compares"
    )
    return text + (f"; if there: {', '.join(optional)}" if optional else "")


def key_rows(config: type[LossConfig], prefix: str = "") -> Iterator[list[str]]:
    """YAML spelling, default, meaning and symbol of each key; a section is followed by its own keys."""
    hints = typing.get_type_hints(config)
    for name, field in config.yaml_names().items():
        default = (
            "null"
            if field.default is None
            else str(field.default).lower()
            if isinstance(field.default, bool)
            else str(field.default)
        )
        yield [
            f"`{prefix}{name}`",
            default,
            _cell(field.metadata["help"]),
            field.metadata.get("symbol") or "",
        ]
        inner = [
            kind
            for kind in typing.get_args(hints[field.name])
            if isinstance(kind, type) and issubclass(kind, LossConfig)
        ]
        for kind in inner:
            yield from key_rows(kind, f"{prefix}{name}.")


def toy_files() -> dict[str, list[str]]:
    """Loss -> project files on the synthetic data that train with it: those of projects/toy/losses, or where
    there are none, all others."""
    own, others = {}, {}
    for path in sorted(PROJECTS.rglob("*.yaml")):
        tree = recursive_config(path)
        loss, split = (tree.get(name) or {} for name in ("loss", "dataset"))
        if loss.get("loss_cls") and split.get("split") != "test":
            found = own if path.parent.name == "losses" else others
            found.setdefault(loss["loss_cls"], []).append(str(path.relative_to(ROOT)))
    return others | own


def _markdown(doc: str) -> str:
    """A docstring as Markdown: indented examples stay code, lines of a paragraph flow together."""
    parts = []
    for paragraph in doc.split("\n\n"):
        is_code = paragraph.startswith("    ")
        parts.append(
            f"```yaml\n{textwrap.dedent(paragraph)}\n```" if is_code else paragraph.replace("\n", " ")
        )
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    """Text whose bars and angle brackets Markdown leaves alone."""
    return text.replace("|", "\\|").replace("<", "\\<")


def main() -> None:
    print(page(), end="")


if __name__ == "__main__":
    main()
