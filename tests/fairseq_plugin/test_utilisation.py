"""MFU and the highest memory."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

from mmpt.config import load_config
from mmpt.fairseq_plugin.criterion import MMCriterion
from mmpt.fairseq_plugin.phases import STRAGGLERS
from mmpt.fairseq_plugin.task import FairseqMMTask
from mmpt.fairseq_plugin.utilisation import Utilisation, memory_peak, peak_rate
from mmpt.losses import MMContraLoss
from mmpt.tasks import build_task
from mmpt.tasks.cost import half_precision, model_without_values, shapes_of, step_cost
from tests.conftest import ROOT

SHAPES = {"caps": (1, 2, 8, 5), "cmasks": (1, 2, 8, 5), "vfeats": (1, 2, 8, 4, 512), "vmasks": (1, 2, 8, 4)}
KINDS = {"caps": torch.long, "vfeats": torch.float32}


@pytest.fixture(scope="module")
def config(toy_world):
    simple = ("loss.sequence_contrast=null", "loss.sinkhorn_iterations=null")
    return load_config(
        ROOT / "projects/toy/norton.yaml", [f"dataset.bert_name={toy_world / 'model'}", *simple]
    )


@pytest.fixture
def sample():
    return {name: torch.ones(shape, dtype=KINDS.get(name, torch.bool)) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("card", "half", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", True, 312),
        ("NVIDIA H100 80GB HBM3", True, 989),
        ("NVIDIA H100 PCIe", False, 378),
        ("NVIDIA L40S", True, 362),
        ("NVIDIA A10G", True, None),
        ("Tesla V100-SXM2-16GB", False, None),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", True, None),
    ],
)
def test_the_rate_of_a_card_is_found_by_its_name(card, half, tflops):
    assert peak_rate(card, half) == (tflops and tflops * 1e12)


def test_mfu_is_the_counted_operations_of_the_rate_against_the_peak(config, sample):
    found, state = Utilisation(config, 2, 1e12), torch.get_rng_state()
    found.count(sample, 16)
    task = build_task(config)
    operations = step_cost(task, model_without_values(task), shapes_of(sample), 2).operations
    assert found.of_rate(32.0) == pytest.approx(32 / 16 * operations / 2e12) and operations > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_operations_of_packed_towers_are_those_of_the_positions_that_are_read(config, sample):
    def operations(**keys):
        task = build_task(dataclasses.replace(config, model=dataclasses.replace(config.model, **keys)))
        lengths = {"vmasks": [1] * 16, "cmasks": [3] * 16}
        shapes = shapes_of(sample | {"lengths": lengths})
        return step_cost(task, model_without_values(task), shapes).operations

    # of 4 seconds 1, with [CLS] and [SEP] 3 of 6 positions; of a caption of 4 positions 2
    assert operations(packed=True) == pytest.approx(operations() / 2, rel=0.15)


def test_without_a_known_peak_nothing_is_counted_nor_said(config):
    found = Utilisation.here(config, 1, on_cpu=True)
    found.count({"no": "batch"}, 1)
    assert found.of_rate(1.0) is None


def test_a_loss_that_reads_values_has_no_mfu_and_the_log_says_why(config, sample, caplog, monkeypatch):
    monkeypatch.setattr(
        MMContraLoss, "forward", lambda self, *, pooled_text, **batch: pooled_text.sum().item()
    )
    found = Utilisation(config, 1, 1e12)
    with caplog.at_level("INFO"):
        found.count(sample, 16)
    assert found.of_rate(1.0) is None and "no mfu" in caplog.text


def test_the_log_line_has_mfu_by_the_clips_of_all_ranks(config, monkeypatch):
    task = object.__new__(FairseqMMTask)
    task.utilisation, task.data_wait = Utilisation(config, 1, 1e12), SimpleNamespace(share=lambda: None)
    task.utilisation.per_clip, looked = 1e9, []
    task.mmtask = SimpleNamespace(assert_finite=lambda: looked.append(True))
    monkeypatch.setattr(STRAGGLERS, "peak_gib", 1.25)
    log = {"loss": torch.ones(()), "n_uncaptioned": torch.zeros(())}
    with metrics.aggregate(new_root=True) as found:
        for _ in range(2):  # a rate begins with the second
            task.reduce_metrics([{**log, "ntokens": 9, "nsentences": 9, "sample_size": 1}], MMCriterion(task))
    values = found.get_smoothed_values()
    assert values["peak_gib"] == 1.25 and values["mfu"] > 0 and looked == [True, True]


@pytest.mark.parametrize(("key", "half"), [("amp", True), ("memory_efficient_bf16", True), ("seed", False)])
def test_half_precision_is_what_fairseq_is_told(config, key, half):
    said = SimpleNamespace(fairseq={"common": {key: 1}})
    assert half_precision(said) is half


def test_memory_without_a_gpu_is_what_is_resident():
    assert 0.1 < memory_peak(on_cpu=True) < 100
