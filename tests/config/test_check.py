"""Everything that is wrong with a project file comes in one answer, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from mmpt.config import ConfigError, load_config
from mmpt.config.catalogue import projects
from mmpt.config.check import check, check_training, examine, training_problems
from mmpt.registry import LOSSES
from tests.conftest import ROOT

GOOD = yaml.safe_load(
    """
dataset:
  meta_processor: ShardedHow2MetaProcessor
  video_processor: ShardedVideoProcessor
  text_processor: ShardedTextProcessor
  aligner: OverlappedAligner
  train_path: data/a.lst
  clip_per_video: 16
  max_video_len: 32
  max_len: 96
  modalities: {video: {path: data/v, width: 512}}
fairseq:
  common: {fp16: false, log_interval: 10}
  dataset: {batch_size: 4}
  optimization: {optimizer: adam, adam_betas: "(0.9, 0.98)", lr: [0.001], lr_scheduler: polynomial_decay}
  checkpoint: {save_dir: runs/a}
model: {model_cls: MMFusionSeparate, video_encoder_cls: MMBertForEncoder}
loss: {loss_cls: MMContraLoss, sequence_contrast: {sequence_contrast_weight: 0.1, threshold: 8}}
eval: {save_path: runs/a/eval}
"""
)

# change of the file -> key and nearest name, or what is expected
TYPOS = [
    # the nine
    ("loss.betta=0.3", "loss.betta", "loss.beta"),
    ("loss.loss_cls=MMContrLoss", "loss.loss_cls", "MMContraLoss"),
    ("loss.sequence_contrast.treshold=8", "loss.sequence_contrast.treshold", "threshold"),
    ("dataset.aligner=OverlapedAligner", "dataset.aligner", "OverlappedAligner"),
    ("model.model_cls=MMFusionSeperate", "model.model_cls", "MMFusionSeparate"),
    ("fairseq.optimization.warmup_update=5", "fairseq.optimization.warmup_update", "warmup_updates"),
    ("dataset.modalities.video.widht=3", "dataset.modalities.video.widht", "width"),
    ("model.crops.num_smal_crops=3", "model.crops.num_smal_crops", "num_small_crops"),
    ("dataset.clip_per_vide=16", "dataset.clip_per_vide", "dataset.clip_per_video"),
    # and more
    ("dataset.meta_processor=ShardedHow2Meta", "dataset.meta_processor", "ShardedHow2MetaProcessor"),
    ("dataset.video_processor=ShardedVideo", "dataset.video_processor", "ShardedVideoProcessor"),
    ("dataset.text_processor=ShardedText", "dataset.text_processor", "ShardedTextProcessor"),
    ("model.video_encoder_cls=MMBertEncoder", "model.video_encoder_cls", "MMBertForEncoder"),
    ("model.num_hidden_video_layer=6", "model.num_hidden_video_layer", "num_hidden_video_layers"),
    ("metric=RetrievalMetrik", "metric", "RetrievalMetric"),
    ("predictor=RetrievalPredicter", "predictor", "RetrievalPredictor"),
    ("task=VideoRetryTask", "task", "VideoRetriTask"),
    ("eval.save_pth=x", "eval.save_pth", "eval.save_path"),
    ("eval.tie_rule=average", "eval.tie_rule", "one of mean, optimistic, pessimistic"),
    ("batch_size=4", "batch_size", ""),
    ("dataset.sampler=numpy", "dataset.sampler", "one of generator, python"),
    ("dataset.sampled_min_len=0", "dataset.sampled_min_len", "at least 1"),
    ("dataset.keep_prob=1.5", "dataset.keep_prob", "at most 1"),
    ("dataset.modalities.video.rate=0", "dataset.modalities.video.rate", "above 0"),
    ("loss.alpha_lse=much", "loss.alpha_lse", "a number"),
    ("loss.beta=2", "loss.beta", "at most 1"),
    ("loss.sequence_contrast.threshold=0", "loss.sequence_contrast.threshold", "at least 1"),
    ("model.init=scratch", "model.init", "pretrained, random"),
    ("fairseq.common.fp16=1", "fairseq.common.fp16", "true or false"),
    ("fairseq.optimization.max_epoch=many", "fairseq.optimization.max_epoch", "a whole number"),
    ("fairseq.optimization.lr=fast", "fairseq.optimization.lr", "expected numbers"),
    ("fairseq.optimization.update_freq=[2, 1.5]", "fairseq.optimization.update_freq", "whole numbers"),
    ("fairseq.optimization.optimizer=adm", "fairseq.optimization.optimizer", "adam"),
    ("fairseq.optimization.momentum=0.9", "fairseq.optimization.momentum", "optimizer: nag"),
    ("plugins=[no_such_plugin]", "plugins", "no such module"),
]


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    monkeypatch.setattr("mmpt.registry._PLUGINS", {})


@pytest.fixture
def good(tmp_path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    return str(path)


def errors(config, overrides=()) -> list:
    return [problem for problem in check(config, overrides) if problem.level == "error"]


def test_a_good_file_has_no_problem(good):
    assert errors(good) == []


@pytest.mark.parametrize(("change", "key", "words"), TYPOS, ids=[key for _, key, _ in TYPOS])
def test_each_mistake_is_found_with_file_key_and_the_nearest_name(good, change, key, words):
    (problem,) = errors(good, [change])
    assert (problem.key, problem.file) == (key, "--set")
    assert words in str(problem)


def test_a_tie_rule_beside_the_released_one_is_refused(good):
    (problem,) = errors(good, ["eval.compat=true", "eval.tie_rule=optimistic"])
    assert problem.key == "eval.tie_rule" and "Set eval.compat: false" in str(problem)


def test_all_mistakes_of_a_file_come_in_one_message(tmp_path):
    # classes that are not known have no keys, and an optimizer that is not known no options
    hidden = ("plugins", "loss.loss_cls", "fairseq.optimization.momentum")
    changes = {change.split("=")[0]: change for change, *_ in TYPOS if not change.startswith(hidden)}
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError) as caught:
        load_config(path, changes.values())
    lines = str(caught.value).splitlines()
    for key in changes:
        assert any(line.startswith(f"--set: {key}: ") for line in lines), key


def test_a_dict_is_checked_like_a_file():
    assert errors(GOOD) == []
    assert [problem.key for problem in errors({**GOOD, "tsk": "Task"})] == ["tsk"]


@pytest.mark.parametrize("path", projects())
def test_shipped_files_have_no_problem(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    # templates leave what training needs to the files that are made of them
    assert [p for p in errors(path) if ": training needs " not in p.message] == []


@pytest.mark.parametrize("said, wrong", [("", "is missing"), ("max_update: 5, epochs: 2", "say two things")])
def test_a_schedule_over_the_whole_training_needs_its_length_once(said, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optimization = f"{{lr_scheduler: warmup_share, lr: [0.1], {said}}}"
    (problem,) = errors(
        {**GOOD, "fairseq": {**GOOD["fairseq"], "optimization": yaml.safe_load(optimization)}}
    )
    assert problem.key == "fairseq.optimization.max_update" and wrong in problem.message


@pytest.mark.parametrize("rate", ["1e-4", "[1e-4]", "[0.1, 2]", "'1e-4, 1e-5'", "'[0.1, 0.2]'"])
def test_rates_may_be_one_or_several_and_in_a_text(good, rate):
    assert check(good, [f"fairseq.optimization.lr={rate}"]) == check(good)


def test_a_key_of_a_class_that_is_not_named_is_a_note(good):
    notes = {problem.key: problem for problem in check(good, ["dataset.lazy_vfeat_mask=true"])}
    note = notes["dataset.lazy_vfeat_mask"]
    assert note.level == "note"
    assert "MFMMLMAligner" in note.message
    assert load_config(good, ["dataset.lazy_vfeat_mask=true"]).dataset.lazy_vfeat_mask is True


def test_what_an_included_file_says_for_other_classes_is_no_note(good, tmp_path):
    (tmp_path / "base.yaml").write_text(f"includes: {good}\ndataset:\n  lazy_vfeat_mask: true\n")
    (tmp_path / "heir.yaml").write_text("includes: ./base.yaml\n")
    assert [problem.key for problem in check(tmp_path / "base.yaml")] == ["dataset.lazy_vfeat_mask"]
    assert check(tmp_path / "heir.yaml") == []


def test_views_of_another_hypothesis_are_a_contradiction(good):
    tree = {**GOOD, "loss": {"loss_cls": "GDTLoss", "hypothesis": 1}}
    tree["dataset"] = {**GOOD["dataset"], "aligner": "GDTAligner", "views": ["orig", "rev"], "subsampling": 2}
    (problem,) = errors(tree)
    assert "loss.hypothesis 1 compares the views orig; dataset.views are orig, rev" in str(problem)


@pytest.mark.parametrize("loss", [GOOD["loss"], {"loss_cls": "SequenceContrastLoss", "threshold": 8}])
def test_clips_that_fill_no_whole_sequences_have_one_cure(loss):
    tree = {**GOOD, "loss": loss, "dataset": {**GOOD["dataset"], "clip_per_video": 9}}
    (problem,) = errors(tree)
    assert "dataset.clip_per_video=9 is not a multiple of loss.sequence_contrast.threshold=8" in str(problem)
    assert str(problem).endswith("Use 16.")


def test_losses_of_a_sum_are_looked_into():
    parts = [{"loss_cls": "MMContraLoss", "betta": 1, "weight": "half"}, {"loss_cls": "GRAMLos"}]
    found = errors({**GOOD, "loss": {"loss_cls": "SumLoss", "losses": parts}})
    assert {problem.key for problem in found} == {
        "loss.losses[0].betta",
        "loss.losses[0].weight",
        "loss.losses[1].loss_cls",
    }


PLUGIN = '''
from dataclasses import dataclass
import torch, some_package_that_is_not_here
from mmpt.losses import Loss, LossConfig, option
from mmpt.registry import LOSSES

@dataclass(frozen=True, kw_only=True)
class MarginConfig(LossConfig):
    margin: float = option(0.2, "distance", least=0)

@LOSSES.register()
class FileMarginLoss(Loss[MarginConfig]):
    """Keeps a margin. And more."""

    Config = MarginConfig

    def forward(self, *, pooled_video, pooled_text, logit_scale=None, **batch): ...

@LOSSES.register("NamedByHand")
class PlainLoss(Loss):
    def __init__(self, scale=1.0, bias=0.0): ...
'''


def test_a_data_set_of_single_items_under_a_task_of_groups_is_found():
    path = ROOT / "projects/toy/norton.yaml"
    assert errors(path) == []
    (found,) = errors(path, ["dataset.meta_processor=MSRVTTMetaProcessor"])
    assert found.key == "dataset.meta_processor" and "VideoRetriTask trains on groups" in found.what
    assert errors(path, ["dataset.meta_processor=MSRVTTMetaProcessor", "task=Task"]) == []


def test_a_plugin_file_declares_keys_and_is_never_stale(tmp_path):
    plugin = tmp_path / "margin_plugin.py"
    plugin.write_text(PLUGIN)
    path = tmp_path / "x.yaml"
    loss = {"loss_cls": "FileMarginLoss", "margin": 0.1}
    path.write_text(yaml.safe_dump({**GOOD, "plugins": ["margin_plugin.py"], "loss": loss}))
    assert errors(path) == []
    assert errors(path, ["loss.margn=1"])[0].cure == "Did you mean loss.margin?"
    assert LOSSES.describe("FileMarginLoss").reads == ("pooled_video", "pooled_text")
    assert load_config(path).plugins == [str(plugin)]
    assert [p.key for p in errors(path, ["loss={loss_cls: NamedByHand, scale: 2, biass: 1}"])] == [
        "loss.biass"
    ]
    plugin.write_text(PLUGIN.replace("margin: float", "gap: float"))
    assert [p.key for p in errors(path)] == ["loss.margin"]


PLUGIN_TASK = '''
from dataclasses import dataclass
from mmpt.config.fields import Section, option
from mmpt.registry import TASKS
from mmpt.tasks import Task

@TASKS.register()
class StagedTask(Task):
    """Trains in stages."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Section):
        first: int = option(0, "epochs of the first stage")
        second: int = option(0, "epochs of the second")

        def __post_init__(self):
            if self.first and self.second:
                raise ValueError("first and second exclude each other.")
'''


def test_keys_of_the_top_level_that_contradict_each_other_are_a_problem(tmp_path):
    (tmp_path / "staged_plugin.py").write_text(PLUGIN_TASK)
    path = tmp_path / "x.yaml"
    keys = {"plugins": ["staged_plugin.py"], "task": "StagedTask", "first": 1, "second": 2}
    path.write_text(yaml.safe_dump({**GOOD, **keys}))
    assert [str(p) for p in errors(path)] == [f"{path}: first and second exclude each other."]


def test_checking_needs_neither_torch_nor_fairseq():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'transformers', 'fairseq')));"
        "from mmpt.config.check import check;"
        "found = check('projects/retri/norton/how2_pretrain.yaml', ['loss.betta=0.3']);"
        "print(*(problem.key for problem in found if problem.level == 'error'))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert said.stdout == "loss.betta\n"


SEQUENCES = GOOD["loss"]
TRAINABLE = {
    "dataset": {"train_path": "a.lst"},
    "model": {"model_cls": "MMFusionSeparate"},
    "loss": {"loss_cls": "MMContraLoss"},
    "fairseq": {"checkpoint": {"save_dir": "runs/a"}},
}


def refused(tree: dict) -> str:
    return "\n".join(str(problem) for problem in examine(tree, "x.yaml")[1] if problem.level == "error")


def test_clips_that_do_not_fill_whole_sequences_are_refused_with_the_cure():
    assert refused({"dataset": {"clip_per_video": 15}, "loss": SEQUENCES}) == (
        "x.yaml: dataset.clip_per_video=15 is not a multiple of loss.sequence_contrast.threshold=8; "
        "sequences need whole groups. Use 16."
    )


def test_subsampling_counts_where_clip_per_video_is_missing():
    tree = {"dataset": {"subsampling": 12}, "loss": SEQUENCES}
    assert "dataset.subsampling=12 is not a multiple" in refused(tree)


@pytest.mark.parametrize("weight", [None, 0])
def test_sequence_length_does_not_matter_where_the_sequence_loss_is_off(weight):
    section = {"sequence_contrast_weight": weight, "threshold": 8}
    loss = {"loss_cls": "MMContraLoss", "sequence_contrast": section}
    assert refused({"dataset": {"clip_per_video": 15}, "loss": loss}) == ""


def test_fp16_on_the_cpu_is_refused_with_the_cure():
    message = refused({"fairseq": {"common": {"cpu": True, "fp16": True}}})
    assert "fairseq.common.fp16: true does not run beside fairseq.common.cpu: true" in message
    assert "Set fairseq.common.fp16: false, or in its place fairseq.common.bf16: true" in message
    assert refused({"fairseq": {"common": {"cpu": True, "bf16": True}}}) == ""


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            {"sampled_min_len": 9, "sampled_max_len": 8},
            "dataset.sampled_min_len=9 is larger than dataset.sampled_max_len=8",
        ),
        ({"max_len": 35, "max_video_len": 32}, "Use at least 36"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(dataset, message):
    assert message in refused({"dataset": dataset})


def test_zero_isolated_layers_are_fine():
    assert refused({"dataset": {"num_iso_layer": 0}}) == ""


def test_windows_must_be_merged_as_they_were_cut():
    loss = {"loss_cls": "TempCLRLocalisationLoss", "sliding_window": 16}
    tree = {"dataset": {"aligner": "CrossTaskAligner", "sliding_window": 8, "sliding_window_size": 16}}
    message = "loss.sliding_window=16 differs from dataset.sliding_window=8"
    assert message in refused({**tree, "loss": loss})
    assert message in refused({**tree, "loss": {"loss_cls": "SumLoss", "losses": [loss]}})
    assert refused({**tree, "loss": {**loss, "sliding_window": 8}}) == ""


def test_a_complete_training_file_passes():
    assert training_problems(examine(TRAINABLE, "x.yaml")[0]) == []


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("fairseq", "fairseq.checkpoint.save_dir"),
        ("dataset", "dataset.train_path"),
        ("model", "model.model_cls"),
        ("loss", "loss.loss_cls"),
    ],
)
def test_training_names_each_thing_it_lacks(section, key):
    tree = {name: value for name, value in TRAINABLE.items() if name != section}
    with pytest.raises(ConfigError, match=f"x.yaml: {key} is missing"):
        check_training(examine(tree, "x.yaml")[0])


def test_training_from_a_test_file_is_refused():
    with pytest.raises(ConfigError, match="Use --jobtype local_predict"):
        check_training(examine({"dataset": {"split": "test"}}, "x.yaml")[0])


TEMPERATURES = [  # overrides -> the key complained of, part of the cure
    (["model.learnable_temperature=true", "loss.sequence_contrast=null"], "learnable", "temperature: 0.07"),
    (["model.learnable_temperature=true", "loss={loss_cls: TempCLRLoss}"], "learnable", "temperature: 0.07"),
    (["model.learnable_temperature=true", "loss={loss_cls: MILNCELoss}"], "learnable", "temperature: 0.07"),
    (["model.learnable_temperature=true", "loss={loss_cls: CrossEntropy}"], "learnable", "false."),
    (
        ["model.learnable_temperature=true", "model.similarity=cosine"],
        "model.learnable_temperature",
        "similarity",
    ),
    (["model.similarity=cosine", "loss.temperature=0.07"], "loss.temperature", "similarity"),
    (["model.learnable_temperature=true", "loss.temperature=0.07"], None, None),
    (["model.learnable_temperature=true"], None, None),  # Norton's sequence part reads it
    (["model.learnable_temperature=true", "loss={loss_cls: PairwiseNCE}"], None, None),
    (
        [
            "model.learnable_temperature=true",
            "loss={loss_cls: SumLoss, losses: [{loss_cls: CrossEntropy}, {loss_cls: PairwiseNCE}]}",
        ],
        None,
        None,
    ),
    (["model.similarity=cosine"], None, None),
]


@pytest.mark.parametrize("overrides, key, cure", TEMPERATURES)
def test_a_temperature_that_nothing_reads_or_that_counts_twice_is_found(overrides, key, cure):
    problems = [
        p for p in check(GOOD, overrides) if p.key.startswith(("model.", "loss.")) and p.level == "error"
    ]
    assert [key in p.key and cure in p.cure for p in problems] == ([True] if key else [])
