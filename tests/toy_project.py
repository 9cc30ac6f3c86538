"""A test project on toy parts, with checkpoints of known quality."""

from __future__ import annotations

import pytest
import torch

YAML = """
plugins: [tests.mmpt_cli.toy_plugin]
dataset:
  {{split: test, meta_processor: ToyMeta, video_processor: ToyVideo, text_processor: ToyText, aligner:
      ToyAligner, test_path: {test_path}}}
fairseq: {{dataset: {{batch_size: 5, num_workers: 0}}, common_eval: {{path: {path}}}}}
model: {{model_cls: ToyTowers}}
eval: {{save_path: {save_path}, bootstrap: 20}}
predictor: RetrievalPredictor
metric: {metric}
"""


@pytest.fixture
def project(tmp_path):
    """A test YAML and a run folder with a bad, a good and a useless checkpoint; the last is the configured
    path."""
    run = tmp_path / "run"
    run.mkdir()
    eye = torch.eye(12)
    for name, table in (
        ("checkpoint_best", eye),
        ("checkpoint1", -eye),
        ("checkpoint_last", torch.zeros(12, 12)),
    ):
        torch.save({"model": {"mmmodel.table": table}}, run / f"{name}.pt")
    (tmp_path / "list.txt").write_text("a list\n")

    def write(metric="RetrievalMetric", path=run / "checkpoint_last.pt"):
        config = tmp_path / "toy_zs.yaml"
        config.write_text(
            YAML.format(path=path, save_path=f"{run}/", metric=metric, test_path=tmp_path / "list.txt")
        )
        return str(config)

    return write
