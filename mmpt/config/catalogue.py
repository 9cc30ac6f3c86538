"""The project files that come with mmpt, a line each, in the words of their own first lines."""

from __future__ import annotations

from mmpt.config.load import SHIPPED, recursive_config
from mmpt.config.yamlfile import ConfigError, read_yaml

# folder below projects/ -> what its files reproduce
PAPERS = {
    "dual": "Dual encoders of transformers: CLIP, SigLIP, X-CLIP, CLAP",
    "task": "Templates of the end tasks, for pipelines; and tests of frozen features",
    "mtm": "VLM: Xu et al., Findings of ACL 2021, arXiv 2105.09996",
    "retri/videoclip": "VideoCLIP: Xu et al., EMNLP 2021, arXiv 2109.14084",
    "retri/norton": "Norton: Lin et al., ICLR 2024, arXiv 2401.16702",
    "retri/tempclr": "TempCLR: Yang et al., ICLR 2023, arXiv 2212.13738",
    "retri/milnce": "MIL-NCE: Miech et al., CVPR 2020, arXiv 1912.06430",
    "retri/gdt": "GDT: Patrick et al., ICCV 2021, arXiv 2003.04298",
    "retri/stica": "STiCA: Patrick et al., ICCV 2021, arXiv 2103.10211",
    "retri/gram": "GRAM: Cicchetti et al., ICLR 2025, arXiv 2412.11959",
    "retri/small": "Small towers: word pieces in their context and linear maps of seconds, a minute on a CPU",
    "toy": "The same on synthetic data, minutes on a CPU",
    "toy/losses": "One loss a file, on synthetic data",
    "toy/gram": "N modalities, on synthetic data",
    "toy/stica": "STiCA, on synthetic data",
    "toy/small": "Small towers, on synthetic data",
}


def projects() -> dict[str, str]:
    """Path -> what the file is for, of every shipped project file and of those that pipelines derive.

    A file whose name starts with `test_` evaluates (`_zs`: without training on the task); any other trains,
    or derives such files.
    """
    found: dict[str, str] = {}
    files = {path: read_yaml(path) for path in sorted((SHIPPED / "projects").rglob("*.yaml"))}
    included = {tree.get("includes") for tree in files.values()}
    for path, said in files.items():
        name = str(path.relative_to(SHIPPED))
        if path.name.startswith("compare"):  # files of the comparison of losses
            continue
        found[name] = _about(name)
        # a pipeline names its folder itself; one that others include is there for them
        if "project_dir" not in said or name in included:
            continue
        tree = recursive_config(path)
        for group in tree["task_group"].values():
            for file in group.get("task_list") or ():
                about = _about(f"projects/{tree['base_dir']}/{file}")
                found[f"projects/{tree['project_dir']}/{file}"] = f"{about} (derived by {name})"
    return dict(sorted(found.items()))


def _about(name: str) -> str:
    """The first sentences of a file's comment, without how to run it.

    Raises:
        ConfigError: the file does not start with a comment.
    """
    first = (SHIPPED / name).read_text(encoding="utf-8").split("\n", 1)[0]
    if not first.startswith("# "):
        raise ConfigError(f"{name}: expected a first line `# what the file is for. Run: ...`, got {first!r}.")
    for end in (" Run:", " Template;", " Derive its files:"):
        first = first.split(end)[0]
    return first.removeprefix("# ").rstrip()


def folder_of(name: str) -> str:
    """The key of `PAPERS` that a project file belongs to."""
    inner = name.removeprefix("projects/").removesuffix(".yaml")
    folders = [folder for folder in PAPERS if inner == folder or inner.startswith(f"{folder}/")]
    return max(folders, key=len, default="")


def page() -> str:
    """`projects/README.md`: the files by paper."""
    lines = [
        "# Project files",
        "",
        "<!-- Generated: python scripts/docs/projects.py -->",
        "",
        "A file whose name starts with `test_` evaluates, with `_zs` at its end without training on the",
        "task; any other trains. A file marked *derived* need not exist: the pipeline named beside it says",
        "what is in it. `mmpt list projects` shows the same, `mmpt copy FILE` makes a file of your own.",
    ]
    groups: dict[str, list[tuple[str, str]]] = {folder: [] for folder in ("", *PAPERS)}
    for name, about in projects().items():
        groups[folder_of(name)].append((name, about))
    for folder, files in groups.items():
        if files:
            lines += [
                "",
                f"## {PAPERS.get(folder, 'Pipelines')}",
                "",
                "| file | what it is for |",
                "|---|---|",
            ]
            lines += [f"| `{name.removeprefix('projects/')}` | {about} |" for name, about in files]
    return "\n".join(lines) + "\n"
