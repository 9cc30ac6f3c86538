"""Keys that follow from others where a file leaves them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# GDT's nine, numbered from 1; v: distinctive, i: invariant (`mmpt.ops.gdt` knows the rest)
HYPOTHESES = (
    "cross_modal_baseline",
    "v_reversal",
    "i_reversal",
    "v_shift",
    "i_shift",
    "v_reversal_v_shift",
    "i_reversal_v_shift",
    "v_reversal_i_shift",
    "i_reversal_i_shift",
)


def completed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved project file with what its other keys decide.

    `loss.hypothesis` says which views of a clip GDT compares, and so how many samples an item has and how a
    batch is laid out; `dataset.num_video_per_batch` then says how many samples a batch has.
    """
    loss, dataset = tree.get("loss"), tree.get("dataset")
    if not isinstance(loss, Mapping) or loss.get("loss_cls") != "GDTLoss" or not isinstance(dataset, Mapping):
        return dict(tree)
    views = views_of(loss.get("hypothesis", 1))
    if views is None or dataset.get("views") is not None:
        return dict(tree)
    dataset = {**dataset, "views": views}
    if len(views) > 1 and dataset.get("subsampling") is None:
        dataset["subsampling"] = len(views)
    if len(views) > 1 and loss.get("layout") is None:
        loss = {**loss, "layout": "item_major"}
    return {**tree, "dataset": dataset, "loss": loss, **_batch_size(tree, dataset, len(views))}


def _batch_size(tree: Mapping[str, Any], dataset: Mapping[str, Any], n_views: int) -> dict[str, Any]:
    """`fairseq` with the samples of `num_video_per_batch` videos, where it does not say how many itself."""
    fairseq, n_videos = tree.get("fairseq"), dataset.get("num_video_per_batch")
    groups = fairseq if isinstance(fairseq, Mapping) else {}
    said = groups.get("dataset")
    said = said if isinstance(said, Mapping) else {}
    if not isinstance(n_videos, int) or said.get("batch_size") is not None:
        return {}
    return {"fairseq": {**groups, "dataset": {**said, "batch_size": n_videos * n_views}}}


def views_of(hypothesis: int | str) -> list[str] | None:
    """The views of a clip that a hypothesis compares; None for one that is unknown, which the loss
    reports."""
    numbered: dict[int | str, str] = dict(enumerate(HYPOTHESES, 1))
    named = numbered.get(hypothesis, str(hypothesis).replace("d_", "v_"))
    if named not in (*HYPOTHESES, "base"):
        return None
    views = ["orig", *(["rev"] if "reversal" in named else [])]
    return views + ([f"shift{view.removeprefix('orig')}" for view in views] if "shift" in named else [])
