"""Task: flattening, the step, and what stops training."""

from types import SimpleNamespace

import pytest
import torch

from mmpt.config import load_config
from mmpt.losses import Loss
from mmpt.tasks import RetriTask, Task, VideoRetriTask, build_task
from mmpt.tasks.cost import shapes_of
from tests.conftest import ROOT
from tests.device_waits import NoCopies, NoLiterals


def config(*overrides, path="projects/toy/norton.yaml"):
    return load_config(ROOT / path, overrides)


class Towers(torch.nn.Module):
    """Stands for a model: pooled vectors made of what it is given."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, caps, cmasks, vfeats, vmasks, **batch):
        return {"pooled_video": vfeats.mean(1) * self.scale, "pooled_text": vfeats.mean(1) * self.scale}


def batch(videos=2, clips=8, spoil=False):
    generator = torch.Generator().manual_seed(0)
    vfeats = torch.randn(1, videos, clips, 4, 6, generator=generator)
    if spoil:
        vfeats[0, 0, 0, 0, 0] = float("nan")
    cmasks = torch.ones(1, videos, clips, 5, dtype=torch.bool)
    cmasks[0, 0, 0, 3:] = False
    return {
        "caps": torch.ones(1, videos, clips, 5, dtype=torch.long), "cmasks": cmasks, "vfeats": vfeats,
        "vmasks": torch.ones(1, videos, clips, 4, dtype=torch.bool), "video_id": [["a", "b"]],
    }  # fmt: skip


def videoclip(task_cls=VideoRetriTask, *overrides):
    return task_cls(config("loss.sequence_contrast=null", "loss.sinkhorn_iterations=null", *overrides))


def test_the_class_comes_from_the_project_file():
    assert type(build_task(config())) is VideoRetriTask
    assert type(build_task(config("task=null"))) is Task


def test_groups_of_videos_become_rows_video_after_video():
    flat = videoclip().flatten(batch(videos=3))
    assert flat["caps"].shape == (24, 5) and flat["vfeats"].shape == (24, 4, 6)
    torch.testing.assert_close(flat["vfeats"][8:16], batch(videos=3)["vfeats"][0, 1])
    assert flat["video_id"] == [["a", "b"]]


def test_sub_samples_of_an_item_become_rows():
    task = Task(config("dataset.subsampling=4", "dataset.clip_per_video=null", "loss.sequence_contrast=null"))
    assert task.flatten({"caps": torch.zeros(2, 4, 5), "idx": torch.arange(2)})["caps"].shape == (8, 5)


def test_a_step_gives_the_loss_its_terms_and_the_clips_without_words():
    model, task = Towers(), videoclip()
    step = task(model, batch())
    step.loss.backward()
    assert model.scale.grad is not None
    assert step.n_clips == 16 and int(step.n_uncaptioned) == 1
    torch.testing.assert_close(step.loss.detach(), sum(step.terms.values()))


def test_a_learned_temperature_is_there_for_the_log():
    class Tempered(Towers):
        def forward(self, **batch):
            return {**super().forward(**batch), "logit_scale": torch.tensor(2.0, requires_grad=True)}

    torch.testing.assert_close(videoclip()(Tempered(), batch()).temperature, torch.tensor(2.0).neg().exp())
    assert videoclip()(Towers(), batch()).temperature is None


def test_the_wrapped_models_own_forward_is_called():
    calls = []
    model = Towers()
    model.register_forward_hook(lambda *_: calls.append(1))
    videoclip()(model, batch())
    assert calls == [1]


def test_a_loss_that_is_not_finite_stops_by_the_name_of_its_term():
    with pytest.raises(FloatingPointError, match="video_to_text = nan"):
        videoclip()(Towers(), batch(spoil=True))


def test_a_loss_that_was_cut_off_from_the_model_is_refused_in_training_alone():
    task, model = videoclip(), Towers()
    task.loss.forward = lambda **batch: batch["pooled_video"].detach().sum()
    with pytest.raises(ValueError, match="MMContraLoss returned a loss without gradient"):
        task(model, batch())
    with torch.no_grad():
        assert task(model, batch()).loss.isfinite()


def test_on_a_gpu_a_step_does_not_look_at_its_terms():
    task, model = videoclip(), Towers().to("meta")
    sample = shapes_of(batch())
    for task.num_updates in range(2):
        with NoCopies(), NoLiterals():
            task(model, sample).loss.backward()


def test_of_a_gpu_the_term_and_the_update_that_first_failed_are_told_later(monkeypatch):
    monkeypatch.setattr(Loss, "assert_finite", lambda self: None)  # which on the CPU raises at once
    task = videoclip()
    for task.num_updates in range(5):
        task(Towers(), batch(spoil=task.num_updates in (2, 4)))
    with pytest.raises(FloatingPointError, match="MMContraLoss: video_to_text was not .* in update 3, text_"):
        task.assert_finite()
    task.assert_finite()  # it has been said


def test_a_loss_that_reads_what_the_model_does_not_give_says_so():
    with pytest.raises(TypeError, match="MMContraLoss reads .*video_outputs"):
        VideoRetriTask(config())(Towers(), batch())


def test_training_reads_clips_by_length_and_evaluation_as_they_come(toy_world):
    task = build_task(config("model.length_buckets=2", f"dataset.bert_name={toy_world}/model"))
    model, clips, widths = task.build_model(), batch(), []
    flat = task.flatten(clips | {"vfeats": torch.randn(1, 2, 8, 4, 512)})
    model.text_encoder.register_forward_hook(lambda *_: widths.append(1))
    for training, passes in ((True, 2), (False, 1)):
        widths.clear()
        task.forward(model.train(training), flat)
        assert len(widths) == passes


def test_reading_by_length_needs_towers_that_read_alone(toy_world):
    joint = "model.length_buckets=2", "model.model_cls=MMFusionJoint", "model.mm_encoder_cls=MMBertForJoint"
    with pytest.raises(ValueError, match="MMFusionJoint has no towers that read alone"):
        build_task(config(*joint, f"dataset.bert_name={toy_world}/model")).build_model()


@pytest.mark.parametrize("key", ["model.packed=true", "model.length_buckets=2"])
def test_padding_is_not_left_out_where_the_loss_reads_it(toy_world, key):
    overrides = key, "loss.compat=true", f"dataset.bert_name={toy_world}/model"
    with pytest.raises(ValueError, match="leaves padding out, and loss.compat: true reads what towers"):
        build_task(config(*overrides)).build_model()


def test_packed_towers_train_from_a_collated_batch_and_without_padding(toy_world):
    task = build_task(config("model.packed=true", f"dataset.bert_name={toy_world}/model"))
    model, rows = task.build_model(), []
    first = model.text_encoder.encoder.layer[0]
    first.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    clips = batch() | {"vfeats": torch.randn(1, 2, 8, 4, 512)}
    task.forward(
        model.train(), task.flatten(clips | {"lengths": {"vmasks": [4] * 16, "cmasks": [3] + [5] * 15}})
    )
    assert rows == [16 * 4 - 2]


def test_packing_and_sorting_by_length_are_one_choice(toy_world):
    overrides = "model.packed=true", "model.length_buckets=2", f"dataset.bert_name={toy_world}/model"
    with pytest.raises(ValueError, match="model.packed leaves all padding out, .* Set one of them"):
        build_task(config(*overrides)).build_model()


def test_training_without_a_loss_is_refused_with_the_key_to_set():
    with pytest.raises(ValueError, match="loss.loss_cls is missing"):
        Task(config("loss=null"))(Towers(), batch())


def test_sequences_that_do_not_divide_a_videos_clips_are_refused_at_the_start():
    with pytest.raises(
        ValueError, match="dataset.clip_per_video=15 is not a multiple of loss.sequence_contrast.threshold=8"
    ):
        build_task(config("dataset.clip_per_video=15"))


def test_random_groups_differ_by_epoch_and_not_by_process():
    task = videoclip(RetriTask)
    drawn = []
    meta = SimpleNamespace(random_candidates=lambda rng: drawn.append(rng.permutation(20).tolist()))
    for epoch in (1, 2, 1):
        task.begin_epoch(SimpleNamespace(meta_processor=meta, seed=3), epoch, None)
    assert drawn[0] == drawn[2] != drawn[1]


def test_vlm_puts_the_odd_clips_of_an_item_behind_the_even_ones():
    task = build_task(
        config(
            "task=VLMTask",
            "dataset.subsampling=4",
            "dataset.clip_per_video=null",
            "loss.sequence_contrast=null",
        )
    )
    rows = torch.arange(8).view(2, 4, 1).expand(2, 4, 3)
    assert task.flatten({"caps": rows, "video_id": ["a", "b"]})["caps"][:, 0].tolist() == [
        0,
        2,
        4,
        6,
        1,
        3,
        5,
        7,
    ]
    lengths = {"lengths": {"cmasks": list(range(8))}}
    assert task.flatten(lengths) == {"lengths": {"cmasks": [0, 2, 4, 6, 1, 3, 5, 7]}}
    with pytest.raises(ValueError, match="subsampling=3.* even number"):
        odd = build_task(
            config(
                "task=VLMTask",
                "dataset.subsampling=3",
                "dataset.clip_per_video=null",
                "loss.sequence_contrast=null",
            )
        )
        odd.flatten({})


def test_a_loss_that_the_model_cannot_feed_is_refused_when_the_model_is_built(toy_world):
    task = build_task(config("loss={loss_cls: BCE}", f"dataset.bert_name={toy_world}/model"))
    with pytest.raises(
        ValueError, match="BCE reads logits, which model.model_cls MMFusionSeparate does not return"
    ):
        task.build_model()


def test_windows_of_another_stride_than_the_loss_merges_are_refused_at_the_start():
    with pytest.raises(ValueError, match="loss.sliding_window=16 differs from dataset.sliding_window=8"):
        build_task(config("loss={loss_cls: TempCLRLocalisationLoss}", "dataset.sliding_window=8"))
