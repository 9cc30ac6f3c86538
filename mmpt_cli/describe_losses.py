"""Describe every loss from the code's own words: `python -m mmpt_cli.describe_losses > docs/losses.md`.

Sentences, keys, defaults and what is read come from the classes; formula, paper and cost stand in
`mmpt_cli/loss_facts.py`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator

import mmpt.losses  # noqa: F401  (registers them)
from mmpt.config import recursive_config
from mmpt.demo.toy_runs import PROJECTS
from mmpt.evaluators.report import markdown_table
from mmpt.losses import Loss, LossConfig, SumLoss
from mmpt.registry import LOSSES
from mmpt_cli.loss_facts import FACTS, FAMILIES, INTRODUCTION, TENSORS


def page() -> str:
    """The whole file."""
    examples = toy_files()
    parts = [INTRODUCTION, overview(examples)]
    for family, names in FAMILIES.items():
        parts += [f"## {family}", *(section(name, examples.get(name, [])) for name in names)]
    tensors = [["name", "shape and meaning"], *([f"`{name}`", text] for name, text in TENSORS.items())]
    return "\n\n".join([*parts, "## What a batch holds", markdown_table(tensors)]) + "\n"


def overview(examples: dict[str, list[str]]) -> str:
    """One line a loss."""
    rows = [["loss_cls", "in one sentence", "try it"]]
    for name in (name for names in FAMILIES.values() for name in names):
        files = "<br>".join(f"`{path}`" for path in examples.get(name, []))
        rows.append([f"[{name}](#{name.lower()})", _cell(sentence(LOSSES.get(name))), files])
    return markdown_table(rows)


def section(name: str, examples: list[str]) -> str:
    """One loss."""
    cls, facts = LOSSES.get(name), FACTS[name]
    parts = [f"### {name}", _markdown(inspect.getdoc(cls)), f"```text\n{facts.formula}\n```"]
    lines = [f"- Paper: {facts.paper}", f"- Reads: {reads(cls)}", f"- Cost: {facts.cost}"]
    if facts.note:
        lines.append(f"- {facts.note}")
    if examples:
        lines.append(f"- On the embedded data: {', '.join(f'`{path}`' for path in examples)}")
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
    """Loss -> project files on the embedded data that train with it."""
    found: dict[str, list[str]] = {}
    others = (
        "coin_ft",
        "crosstask_ft",
        "crosstask_tempclr",
        "fewshot",
        "gram/triangle",
        "stica/sequences",
        "stica/maps",
    )
    for path in [*sorted(PROJECTS.glob("losses/*.yaml")), *(PROJECTS / f"{name}.yaml" for name in others)]:
        found.setdefault(recursive_config(path)["loss"]["loss_cls"], []).append(
            str(path.relative_to(PROJECTS.parent.parent))
        )
    return found


def _markdown(doc: str) -> str:
    """A docstring as Markdown: indented examples stay code, lines of a paragraph flow together."""
    parts = []
    for paragraph in doc.split("\n\n"):
        is_code = paragraph.startswith("    ")
        parts.append(
            f"```yaml\n{inspect.cleandoc(paragraph)}\n```" if is_code else paragraph.replace("\n", " ")
        )
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    """Text whose bars and angle brackets Markdown leaves alone."""
    return text.replace("|", "\\|").replace("<", "\\<")


def main() -> None:
    print(page(), end="")


if __name__ == "__main__":
    main()
