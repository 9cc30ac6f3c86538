"""Every loss with a toy file really trains through fairseq, on one process and on two; one line of YAML
exchanges it."""

from __future__ import annotations

import re

import pytest

from experiments import training_process
from mmpt.config import load_config
from mmpt.losses import build_loss
from scripts.docs.losses import toy_files
from tests.conftest import ROOT
from tests.toy_training import UPDATES, train

FILES = [ROOT / path for paths in toy_files().values() for path in paths]
FILES = [path for path in FILES if not path.name.startswith("raw_")]  # of videos: mmpt_cli/test_make_clips.py
TERMS = {  # what the log must name to show that it is this loss that trained
    "videoclip": "text_to_video",
    "norton": "sequence",
    "t2v": "text_to_video",
    "v2t": "video_to_text",
    "sequence": "paragraph_to_video",
    "milnce": "milnce",
    "tempclr_dtw": "qualifying_share",
    "tempclr_otam": "qualifying_share",
    "gdt": "base",
    "gdt_reversal_shift": "shift_of_rev",
    "gram": "a2d",
    "pairwise": "pairwise",
    "pmrl": "separation",
    "symile": "symile",
    "sum": "order/alignment",
    "nce": "nce",
    "mtm": "mtm",
    "mfmmlm": "mlm",
    "nlg": "nlg",
    "caption": "caption",
    "answer": "answer",
    "crosstask_tempclr": "bce",
    "fewshot": "accuracy",
    "triangle": "a2d",
    "sequences": "crop_ts_tl",
    "maps": "crop_ss_sl",
}


# On two processes one file of each kind of batch and of each way to join processes; the others with -m slow.
TWO = {"videoclip", "norton", "tempclr_dtw", "milnce", "gdt", "gram", "maps", "mtm", "coin_ft"}
RUNS = [(path, 1) for path in FILES] + [
    pytest.param(path, 2, marks=() if path.stem in TWO else pytest.mark.slow) for path in FILES
]


@pytest.fixture(scope="module")
def server(toy_world):
    """Imports fairseq once; runs are forked from it."""
    return training_process.server()


@pytest.mark.parametrize("project, processes", RUNS, ids=lambda value: getattr(value, "stem", None))
def test_the_loss_trains_through_fairseq(project, processes, server, toy_world, tmp_path):
    lines = train(server, toy_world, project, tmp_path / "run", processes)
    assert [line["num_updates"] for line in lines] == list(range(1, UPDATES + 1))
    assert all(line["loss"] == line["loss"] and line["gnorm"] > 0 for line in lines)
    assert TERMS.get(project.stem, "loss") in lines[-1]


def page_example() -> str:
    """The YAML block of the page of losses that exchanges the loss."""
    return re.search(
        r"starts with that loss's defaults:\n\n```yaml\n(.*?)```",
        (ROOT / "docs/losses.md").read_text(),
        re.DOTALL,
    )[1]


def test_the_example_of_the_page_gives_the_loss_that_it_names(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(page_example())
    config = load_config(path)
    assert type(build_loss(config.loss)).__name__ == "TempCLRLoss"
    assert config.dataset == load_config(ROOT / "projects/toy/norton.yaml").dataset


def test_the_line_of_the_readme_exchanges_the_loss(tmp_path):
    (key,) = re.findall(r"--set (loss.loss_cls=\w+)", (ROOT / "README.md").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text((ROOT / "projects/retri/norton/how2_pretrain.yaml").read_text())
    config = load_config(path, [key])
    assert (
        type(build_loss(config.loss)).__name__ == key.partition("=")[2] != load_config(path).loss["loss_cls"]
    )


def test_the_example_of_the_page_trains_on_the_synthetic_data(server, toy_world, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        page_example().replace("projects/toy/norton.yaml", str(ROOT / "projects/toy/norton.yaml"))
    )
    line = train(server, toy_world, path, tmp_path / "run")[-1]
    assert "alignment" in line and "sequence" not in line


def test_exchanging_the_loss_class_alone_exchanges_the_loss(server, toy_world, tmp_path):
    text = (ROOT / "projects/toy/losses/gram.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("loss_cls: GRAMLoss", "loss_cls: T2VContraLoss"))
    line = train(server, toy_world, path, tmp_path / "run")[-1]
    assert "text_to_video" in line and "a2d" not in line


def test_features_that_cross_as_they_are_stored_train_the_same_model(server, toy_world, tmp_path):
    norton = ROOT / "projects/toy/norton.yaml"
    (tmp_path / "stored.py").write_text(
        "from mmpt.processors.base import Aligner\nAligner.as_stored = True  # as on a GPU\n"
    )
    path = tmp_path / "stored.yaml"
    path.write_text(f"includes: {norton}\nplugins: [{tmp_path}/stored.py]\n")
    logs = [train(server, toy_world, file, tmp_path / file.stem) for file in (norton, path)]
    for plain, stored in zip(*logs, strict=True):
        assert (plain["loss"], plain["gnorm"]) == (stored["loss"], stored["gnorm"])
