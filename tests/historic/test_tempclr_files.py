"""Files as the TempCLR release has them."""

import pytest

from mmpt.config import ConfigError, load_config
from mmpt.losses import TempCLRLocalisationLoss, TempCLRLoss, build_loss
from mmpt.tasks import Task, VideoRetriTask, build_task

PRETRAIN = """
task: AlignRetriTask
dataset: {num_video_per_batch: 16, clip_per_video: 16}
loss: {loss_cls: MMContraLoss}
model: {model_cls: MMFusionSeparate}
alignment: {metric: otam, layernorm_only: true, sampling_threshold: 4, total_sample_size: 12,
    alignment_loss_coeff: 0.6}
"""
LOCALISE = """
task: AlignLocalTask
dataset: {sliding_window: 8}
loss: {loss_cls: BCE}
alignment: {metric: dtw, total_sample_size: 20, alignment_loss_coeff: 0.2, video_sampling_multiplier: 5,
    inner_shuffling: false}
"""


def load(tmp_path, text, *overrides):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def test_the_pre_training_file_gives_task_loss_and_frozen_weights(tmp_path):
    config = load(tmp_path, PRETRAIN)
    loss = build_loss(config.loss)
    assert (
        type(loss) is TempCLRLoss
        and type(build_task(config)) is VideoRetriTask
        and config.model.layernorm_only
    )
    keys = loss.config
    assert (keys.metric, keys.sequence_length, keys.n_orders, keys.weight) == ("otam", 4, 12, 0.6)


def test_the_fine_tuning_file_gives_the_localisation_loss_with_the_stride_of_its_windows(tmp_path):
    config = load(tmp_path, LOCALISE)
    loss = build_loss(config.loss)
    assert type(loss) is TempCLRLocalisationLoss and type(build_task(config)) is Task
    keys = loss.config
    assert (keys.frames_per_step, keys.shuffle_frames, keys.window_stride, keys.weight) == (5, False, 8, 0.2)
    assert config.model.layernorm_only is None


def test_an_unknown_key_of_the_block_is_an_error_of_the_loss(tmp_path):
    with pytest.raises(ValueError, match="metrik: unknown key. Did you mean .*metric"):
        build_loss(load(tmp_path, PRETRAIN.replace("metric", "metrik")).loss)


@pytest.mark.parametrize(
    "text, match",
    [
        ("alignment: {metric: dtw}", "TempCLRLoss or TempCLRLocalisationLoss"),
        ("task: AlignRetriTask", "needs an alignment: block"),
    ],
)
def test_half_of_it_is_refused_and_says_where_the_keys_live_now(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        load(tmp_path, text)
