"""The calls that the documentation shows run as they stand, with synthetic weights in the places of the
published ones."""

from __future__ import annotations

import json
import re

import pytest
import torch

from mmpt.backbones.s3d import S3D
from mmpt.config import load_config
from mmpt.models import build_model
from tests.conftest import ROOT

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "pour",
    "the",
    "milk",
    "into",
    "a",
    "pan",
    "cut",
    "onion",
]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "vocab_size": len(WORDS),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder like the repository, with every file that a user downloads: tokenizer, S3D, checkpoint. Sizes
    of BERT are tiny."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "projects").symlink_to(ROOT / "projects")
    for folder in ("bert-base-uncased", "pretrained_models", "runs/retri/norton"):
        (root / folder).mkdir(parents=True)
    (root / "bert-base-uncased" / "vocab.txt").write_text("\n".join(WORDS))
    (root / "bert-base-uncased" / "config.json").write_text(
        json.dumps({"model_type": "bert", "architectures": ["BertModel"], **SIZES})
    )
    (root / "bert-base-uncased" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer"})
    )
    torch.manual_seed(0)
    torch.save(S3D().state_dict(), root / "pretrained_models" / "s3d_howto100m.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        model = build_model(load_config("projects/retri/norton/how2_pretrain.yaml", ["model.init=random"]))
    torch.save(
        {"model": {f"mmmodel.{k}": v for k, v in model.state_dict().items()}},
        root / "runs/retri/norton/checkpoint_best.pt",
    )
    return root


def test_the_published_call_is_on_the_page_as_papers_print_it():
    published = snippets()[0]
    assert (
        "aligner._build_text_seq(tokenizer(" in published
        and "torch.randn(1, 2, 30, 224, 224, 3)" in published
    )
    assert re.search(r"from_pretrained\(\"projects/[\w/]+\.yaml\"\)", published)


def snippets():
    """Python blocks of the notebook page, in order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), flags=re.DOTALL)


def test_snippets_of_the_page_run_one_after_the_other(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    names: dict = {}
    published, *others = snippets()
    with pytest.warns(UserWarning, match="expected frames of type uint8") as warned:
        exec(compile(published, "docs/notebook.md", "exec"), names)
    assert len(warned) == 1
    for snippet in others:
        exec(compile(snippet, "docs/notebook.md", "exec"), names)
    assert names["output"]["score"].shape == (1,) and names["output"]["score"].isfinite().all()
    assert names["scores"].shape == (2, 2)
    assert [caption for caption, _, _ in names["spans"]] == ["cut the onion", "pour the milk"]
    assert names["moments"][0].video_id in ("monday", "tuesday")
