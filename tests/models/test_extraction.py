"""Feature extraction: batching across files, resuming, failures, passports, and the command line on real videos."""

from __future__ import annotations

import importlib.util
import json
import threading

import numpy as np
import pytest
import torch

from mmpt.models.audio import AudioResNet
from mmpt.models.backbones import ImageTower, VideoFeatures, video_backbone
from mmpt.models.extraction import Job, check_passport, extract, list_jobs, share
from mmpt.models.r2plus1d import R2Plus1D
from mmpt.utils.video import VideoError
from tests.conftest import ROOT, real_path


def script(folder):
    """A script's module, from its file."""
    spec = importlib.util.spec_from_file_location(folder, ROOT / "scripts" / folder / "extract.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def jobs(tmp_path):
    """Nine "files" of 1 .. 9 clips, the fifth damaged."""
    return [Job(f"v{n}", tmp_path / f"v{n}") for n in range(1, 10)]


def read(path):
    """Clips of one number each: file * 100 + position; in pieces of two."""
    n = int(path.name[1:])
    clips = np.arange(n, dtype=np.float32)[:, None] + 100 * n
    for first in range(0, n, 2):
        if n == 5 and first == 4:
            raise VideoError(f"{path}: damaged at clip 4")
        yield clips[first : first + 2]


def encode(clips):
    return torch.cat([clips, -clips], dim=1)


@pytest.mark.parametrize(("batch_size", "n_threads"), [(1, 1), (4, 3), (100, 2)])
def test_every_file_gets_its_own_features_in_order(jobs, tmp_path, batch_size, n_threads):
    result = extract(jobs, read, encode, tmp_path / "out", batch_size, n_threads, "float32")
    assert sorted(result.done) == [f"v{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9)]
    for n in (1, 2, 3, 4, 6, 7, 8, 9):
        got = np.load(tmp_path / "out" / f"v{n}.npy")
        assert got.tolist() == [[100 * n + i, -(100 * n + i)] for i in range(n)]


def test_damaged_file_is_listed_with_its_reason_and_is_not_fatal(jobs, tmp_path):
    result = extract(jobs, read, encode, tmp_path / "out")
    assert list(result.failed) == ["v5"] and "damaged at clip 4" in result.failed["v5"]
    assert not (tmp_path / "out" / "v5.npy").exists()


def test_batches_are_full_across_files(jobs, tmp_path):
    sizes = []
    extract(jobs[:4], read, lambda clips: sizes.append(len(clips)) or clips, tmp_path / "out", batch_size=4, n_threads=1)
    assert sizes == [4, 4, 2]


def test_second_run_does_only_what_is_missing(jobs, tmp_path):
    extract(jobs, read, encode, tmp_path / "out")
    (tmp_path / "out" / "v7.npy").unlink()
    seen = []
    result = extract(jobs, read, encode, tmp_path / "out", on_file=lambda job, clips: seen.append((job.video_id, clips)))
    assert result.done == ["v7"] and len(result.skipped) == 7
    assert len(seen) == 9 and ("v7", 7) in seen


def test_error_of_the_program_is_not_hidden_as_a_damaged_file(jobs, tmp_path):
    def broken(path):
        raise KeyError("bug")
        yield

    with pytest.raises(KeyError, match="bug"):
        extract(jobs, broken, encode, tmp_path / "out")


def test_next_file_is_read_while_the_network_runs(jobs, tmp_path):
    reading_second = threading.Event()

    def watched_read(path):
        if path.name == "v2":
            reading_second.set()
        yield from read(path)

    def waiting_encode(clips):
        assert reading_second.wait(timeout=10), "v2 is not read before v1 is encoded"
        return clips

    extract(jobs[:2], watched_read, waiting_encode, tmp_path / "out", batch_size=1, n_threads=1)


def test_features_that_do_not_fit_the_stored_type_are_a_failure(jobs, tmp_path):
    result = extract(jobs[:1], read, lambda clips: clips * 1e6, tmp_path / "out")
    assert "not finite as float16" in result.failed["v1"]


def test_jobs_of_a_folder_and_of_a_csv(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.mp4", "sub/a.MKV", "note.txt"):
        (tmp_path / name).touch()
    assert [job.video_id for job in list_jobs(tmp_path)] == ["a", "b"]
    (tmp_path / "list.csv").write_text("video_id,path\nx,sub/a.MKV\n,b.mp4\n")
    assert list_jobs(tmp_path / "list.csv") == [Job("b", tmp_path / "b.mp4"), Job("x", tmp_path / "sub" / "a.MKV")]


def test_bad_lists_are_explained(tmp_path):
    with pytest.raises(ValueError, match="no files found"):
        list_jobs(tmp_path)
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.mkv").touch()
    with pytest.raises(ValueError, match=r"'a' belongs to .*a\.m.*and to .*a\.m"):
        list_jobs(tmp_path)
    (tmp_path / "list.csv").write_text("name\nx\n")
    with pytest.raises(ValueError, match="expected a column path.*got name"):
        list_jobs(tmp_path / "list.csv")


def test_shares_of_all_processes_are_the_whole_list(jobs):
    assert sorted((job for rank in range(4) for job in share(jobs, rank, 4)), key=lambda job: job.video_id) == jobs
    with pytest.raises(ValueError, match="rank=4"):
        share(jobs, 4, 4)


def test_features_of_another_kind_are_not_mixed(tmp_path):
    check_passport(tmp_path, {"backbone": "s3d", "frames_per_second": 30})
    check_passport(tmp_path, {"backbone": "s3d", "frames_per_second": 30})
    with pytest.raises(ValueError, match="frames_per_second 30 there, 16 now"):
        check_passport(tmp_path, {"backbone": "s3d", "frames_per_second": 16})


def test_reversed_clips_are_the_flipped_frames():
    class Marks(torch.nn.Module):
        def forward(self, clips):
            return clips[:, 0, :, 0, 0]

    frames = torch.arange(8, dtype=torch.uint8).view(2, 4, 1, 1, 1).expand(2, 4, 2, 2, 3)
    forward, backward = (VideoFeatures(Marks(), normalise=False, reverse=r)(frames) for r in (False, True))
    assert torch.equal(forward.flip(1), backward) and torch.allclose(forward * 255, torch.arange(8.0).view(2, 4))


def test_clip_tower_averages_unit_vectors_of_frames(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, image_size=16, patch_size=8, projection_dim=6)).save_pretrained(tmp_path)
    backbone = video_backbone(f"clip:{tmp_path}", fps=3)
    assert (backbone.size, backbone.passport["frames_per_second"]) == (16, 3)
    features = backbone.network(torch.randint(0, 255, (2, 3, 16, 16, 3), dtype=torch.uint8))
    assert features.shape == (2, 6) and torch.allclose(features.norm(dim=-1), torch.ones(2))
    assert isinstance(backbone.network.network, ImageTower)


def test_unknown_backbone_and_absent_weights_are_explained():
    with pytest.raises(ValueError, match="unknown backbone 'i3d'"):
        video_backbone("i3d")
    with pytest.raises(ValueError, match="'r2plus1d' needs its weights"):
        video_backbone("r2plus1d")


@pytest.fixture(scope="module")
def published_checkpoint(tmp_path_factory):
    """A file with video and audio networks under the names of published checkpoints."""
    torch.manual_seed(0)
    networks = {"video_network.base.": R2Plus1D(), "audio_network.base.": AudioResNet()}
    state = {f"module.{prefix}{k}": v for prefix, network in networks.items() for k, v in network.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "gdt.pth"
    torch.save({"state_dict": state}, path)
    return path


def test_real_videos_are_extracted_the_same_by_one_and_by_two_processes(published_checkpoint, tmp_path, capsys):
    pytest.importorskip("av")
    videos, main = real_path("videos"), script("video_feature_extractor").main
    options = ["--backbone", "r2plus1d", "--weights", str(published_checkpoint), "--fps", "4", "--size", "32", "--device", "cpu"]
    main([str(videos), str(tmp_path / "one"), *options, "--rank", "0", "--world-size", "1"])
    assert "4 extracted, 0 were there, 1 failed" in capsys.readouterr().out
    assert (tmp_path / "one" / "failed_0.tsv").read_text().startswith("corrupted\t")
    for rank in ("0", "1"):
        main([str(videos), str(tmp_path / "two"), *options, "--rank", rank, "--world-size", "2"])
    files = sorted(path.name for path in (tmp_path / "one").glob("*.npy"))
    assert files == sorted(path.name for path in (tmp_path / "two").glob("*.npy"))
    for name in files:
        one, two = np.load(tmp_path / "one" / name), np.load(tmp_path / "two" / name)
        assert one.dtype == np.float16 and one.shape[1] == 512
        np.testing.assert_allclose(one.astype(float), two.astype(float), atol=2e-3)
    assert json.loads((tmp_path / "one" / "passport.json").read_text())["frames_per_second"] == 4


def test_audio_of_real_videos_is_extracted_second_by_second(published_checkpoint, tmp_path, capsys):
    pytest.importorskip("av")
    options = ["--weights", str(published_checkpoint), "--device", "cpu"]
    script("audio_feature_extractor").main([str(real_path("videos")), str(tmp_path / "out"), *options])
    assert "2 extracted, 0 were there, 3 failed" in capsys.readouterr().out
    assert np.load(tmp_path / "out" / "nasa_with_audio.npy").shape == (14, 512)
    assert "holds no audio track" in (tmp_path / "out" / "failed_0.tsv").read_text()


def test_wrong_weights_end_in_one_sentence(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(SystemExit, match="is it another network"):
        options = ["--backbone", "r2plus1d", "--weights", str(tmp_path / "w.pth")]
        script("video_feature_extractor").main([str(tmp_path), str(tmp_path / "out"), *options])
