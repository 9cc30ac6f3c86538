"""A zero-shot test that runs at every validation, so that the best checkpoint can be picked by what it is
for."""

from __future__ import annotations

from torch import nn
from torch.utils.data import DataLoader

from mmpt.config import load_config
from mmpt.datasets import build_dataset
from mmpt.evaluators import Evaluator


class ZeroShotTest:
    """The test set, predictor and metric of a test project file.

    Args:
        path: the project file, e.g. projects/retri/norton/test_youcook_zs.yaml.
    """

    def __init__(self, path: str):
        config = load_config(path)
        dataset = build_dataset(config, "test")
        self.loader = DataLoader(
            dataset, batch_size=config.trainer.batch_size or 1, collate_fn=dataset.collate
        )
        self.evaluator = Evaluator(config, tokenizer=dataset.text_processor.tokenizer)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Numbers of the model as it is now; it is left in the mode it was in."""
        was_training = model.training
        result, _ = self.evaluator.evaluate(model, self.loader)
        model.train(was_training)
        return result.values
