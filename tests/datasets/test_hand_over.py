"""Features cross to the device as they are stored, and arrive as they were."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.config import load_config
from mmpt.datasets.hand_over import PACKED, pack, send_as_stored, unpack
from mmpt.demo.toy_runs import move_folders
from mmpt.processors.base import Aligner, pack_videos
from mmpt.tasks import build_task
from tests.conftest import ROOT
from tests.device_waits import NoCopies, NoLiterals

FILES = ("videoclip", "milnce", "mfmmlm", "mtm", "gdt", "nlg", "tempclr_dtw")


def batch(toy_world, project, as_stored):
    """Two items of the training set, collated."""
    path = ROOT / f"projects/toy/losses/{project}.yaml"
    dataset = build_task(load_config(path, move_folders(path, {"data/toy": str(toy_world)}))).build_dataset(
        "train"
    )
    if as_stored:
        send_as_stored(dataset)
    return dataset.collate([dataset[0], dataset[1]])


@pytest.mark.parametrize("project", FILES)
def test_what_arrives_is_what_was_padded_in_float32_bit_by_bit(toy_world, project):
    expected = batch(toy_world, project, as_stored=False)
    sent = pack(batch(toy_world, project, as_stored=True))
    assert "vfeats" not in sent and sent[PACKED]["vfeats"].dtype == torch.float16
    assert len(sent[PACKED]["vfeats"]) == expected["vmasks"].sum()
    found = unpack(sent, torch.float32)
    assert found.keys() == expected.keys() and torch.equal(found["vfeats"], expected["vfeats"])
    assert torch.equal(found["vmasks"], expected["vmasks"])


def test_features_in_float32_are_sent_as_they_are():
    plain = {"vfeats": torch.ones(2, 3, 4), "vmasks": torch.ones(2, 3, dtype=torch.bool)}
    assert pack(plain) is plain and unpack(plain, torch.float16) == plain


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_they_arrive_in_the_type_that_the_model_computes_in(dtype):
    mask = torch.tensor([[True, True, False], [False, False, False]])
    stored = {"vfeats": torch.ones(2, 3, 4, dtype=torch.float16) * mask[..., None], "vmasks": mask}
    found = unpack(pack(stored), dtype)["vfeats"]
    assert found.dtype == dtype and torch.equal(found, stored["vfeats"].to(dtype))


def test_beside_a_video_in_float32_one_in_float16_is_widened():
    videos = [np.ones((2, 4), np.float16), np.ones((2, 4), np.float32)]
    for chosen, dtype in (([0, 0], torch.float16), ([0, 1], torch.float32)):
        features = [videos[number] for number in chosen]
        found, _ = pack_videos(features, np.arange(2), np.array([[0, 2], [0, 2]]), 3, as_stored=True)
        assert found.dtype == dtype


def test_the_host_never_waits_for_the_device():
    mask = torch.ones(2, 3, dtype=torch.bool, device="meta")
    rows = torch.ones(5, 4, dtype=torch.float16, device="meta")
    with NoCopies(), NoLiterals():
        found = unpack({"vmasks": mask, PACKED: {"vfeats": rows}}, torch.float16)
    assert found["vfeats"].shape == (2, 3, 4)


def test_each_set_of_a_mixture_sends_what_is_stored_and_an_aligner_of_ones_own_is_left_alone():
    def own(*_):
        pass

    ours = Aligner.__new__(Aligner)
    parts = {"a": SimpleNamespace(aligner=ours), "b": SimpleNamespace(aligner=own)}
    send_as_stored(SimpleNamespace(parts=parts))
    assert ours.as_stored and not hasattr(own, "as_stored")
