"""What frozen embeddings of modalities know about classes: retrieval by nearest neighbours and a linear
probe.

Letters: M videos, K modalities, D width, R splits, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmpt.evaluators.frozen import neighbour_scores, probe_scores
from mmpt.evaluators.metric import Metric
from mmpt.evaluators.ranking import statistic
from mmpt.evaluators.result import Result
from mmpt.evaluators.tasks.recognition import TEST, TRAIN
from mmpt.registry import METRICS

NEIGHBOURS = (1, 5, 10, 20, 50)


@METRICS.register()
class ModalityRecognitionMetric(Metric):
    """Video retrieval by nearest neighbours and a linear probe, for each of `eval.modalities`: the protocol
    of GDT and STiCA.

    A subset is the first letters of modalities whose unit vectors are put side by side: `v`, `a`, `va`; null:
    each alone, then all. For each split, `<subset>-nn-R1` to `R50` say how often one of the k nearest
    training videos has the class of the test video, `<subset>-probe-acc` how often a linear classifier fitted
    to the training videos is right; both are means over splits. Videos that lack a modality of the subset are
    left out of it.
    """

    best_metric = "nn-R1"  # of the last subset

    def evaluate(
        self, labels=None, splits=None, modalities=(), class_names=(), present=None, ids=(), **arrays
    ) -> Result:
        """Score what `ModalityRecognitionPredictor` returns.

        Args:
            labels: (M) class of each video.
            splits: (M, R) 1 training, 2 test, 0 unused.
            modalities: names of K arrays `pooled_<name>` (M, D).
            class_names: C names.
            present: (M, K) bool; None: all there.
            ids: (M) names of the videos.
            arrays: the embeddings.

        Raises:
            ValueError: an unknown subset, or a split without training or test videos.
        """
        labels, splits, names = (
            torch.as_tensor(labels),
            np.asarray(splits),
            [str(name) for name in modalities],
        )
        there = np.ones((len(labels), len(names)), dtype=bool) if present is None else np.asarray(present)
        values, intervals, per_query, counts = {}, {}, {}, {}
        for subset in self.config.modalities or [
            *(name[0] for name in names),
            "".join(name[0] for name in names),
        ]:
            columns = columns_of(subset, names)
            vectors = [
                normalize(torch.as_tensor(arrays[f"pooled_{names[k]}"]).float(), dim=1) for k in columns
            ]
            usable = there[:, columns].all(1)
            found = [
                self._split(
                    normalize(torch.cat(vectors, 1), dim=1),
                    labels,
                    tags * usable,
                    len(class_names),
                    f"split {number} of {subset}",
                )
                for number, tags in enumerate(splits.T, start=1)
            ]
            counts[subset] = int(usable.sum())
            for measure, of in {"probe-acc": "mean", **{f"nn-R{k}": f"R{k}" for k in NEIGHBOURS}}.items():
                of_splits = [one["hits" if of == "mean" else "ranks"] for one in found]
                values[f"{subset}-{measure}"] = float(
                    np.mean([statistic(of)(judged) for judged in of_splits])
                )
                if self.config.bootstrap:
                    intervals[f"{subset}-{measure}"] = self.interval(np.concatenate(of_splits), statistic(of))
            per_query[f"ranks_{subset}-nn"] = np.concatenate([one["ranks"] for one in found])
        chance = {
            name: 1 / len(class_names) for name in ("R1", "acc", *values) if name.endswith(("R1", "acc"))
        }
        facts = {
            "videos": len(labels),
            "classes": len(class_names),
            "splits": splits.shape[1],
            "videos with": counts,
        }
        return Result(values, f"{subset}-{self.best_metric}", intervals, {"chance": chance}, facts, per_query)

    def _split(
        self, vectors: Tensor, labels: Tensor, tags: np.ndarray, n_classes: int, name: str
    ) -> dict[str, Any]:
        """`hits` of the probe and `ranks` of the nearest right neighbour, one for each test video."""
        train, test = (torch.from_numpy(tags == tag) for tag in (TRAIN, TEST))
        if not train.any() or not test.any():
            raise ValueError(f"{name} has no {'test' if train.any() else 'training'} video that can be used.")
        known = vectors[train], labels[train]
        probe = probe_scores(vectors[test], *known, n_classes).argmax(1) == labels[test]
        _, ranks = neighbour_scores(vectors[test], *known, labels[test], n_classes)
        return {"hits": probe.double().numpy(), "ranks": ranks.numpy()}


def columns_of(subset: str, names: Sequence[str]) -> list[int]:
    """`va` -> [0, 1] of [video, audio].

    Raises:
        ValueError: a letter is unknown or repeated.
    """
    letters = [name[0] for name in names]
    if not subset or len(set(subset)) < len(subset) or not set(subset) <= set(letters):
        known = ", ".join(f"{name[0]} ({name})" for name in names)
        raise ValueError(
            f"eval.modalities: {subset!r} is no subset; expected first letters among {known}, each once."
        )
    return [letters.index(letter) for letter in subset]
