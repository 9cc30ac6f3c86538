"""The keys that all classes share, with their defaults and one line of meaning.

A missing key takes its default (mostly null), an unknown key is an error. Keys under `fairseq:` pass through
to fairseq. All other keys are declared by the classes that read them, in a dataclass `Config` beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmpt.config.fields import ConfigError, Problem, option
from mmpt.config.shared import SharedSection
from mmpt.config.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class DatasetConfig(SharedSection):
    """`dataset:` which data, and how an item is cut from it."""

    SECTION: ClassVar[str] = "dataset"

    meta_processor: str | None = option(None, "class that lists the items of the split")
    video_processor: str | None = option(None, "class that reads the features of one video")
    text_processor: str | None = option(None, "class that reads or tokenises the text of one item")
    aligner: str | None = option(None, "class that joins features and tokens into padded tensors")
    bert_name: str | None = option(
        None, "tokenizer and BERT: a hub name or a local folder with config.json and vocab.txt"
    )
    use_fast: bool | None = option(None, "fast tokenizer flag, passed on to transformers")
    split: str | None = option(
        None, "train, valid or test; a test YAML says test", one_of=("train", "valid", "test")
    )
    train_path: str | None = option(None, "list of training items; null: no training")
    val_path: str | None = option(None, "list of validation items; null: no validation")
    test_path: str | None = option(None, "list of test items")
    vfeat_dir: str | None = option(None, "folder of video features: <id>.npy files or shards")
    videos: str | None = option(
        None, "folder of video files, of which `mmpt predict` makes the features that the model reads"
    )
    prompt: str | None = option(
        None, "template round every text, such as `a video of {}.`; null: the text alone"
    )
    vfeat_rate: float | None = option(
        None,
        "rows per second of these features; null: what their passport says, else 1; other rates are "
        "brought to one row a second",
        above=0,
    )
    max_video_len: int | None = option(None, "video tokens (seconds) per clip", least=1)
    max_len: int | None = option(
        None, "video and text positions together; text tensors have max_len - max_video_len columns", least=1
    )
    feature_norm: str | None = option(
        None,
        "center: video features minus their mean over the training data; whiten: also uncorrelated; the "
        "model measures them before its first update and keeps them in its checkpoint",
        one_of=("center", "whiten"),
    )
    subsampling: int | None = option(None, "clips per item; also divides the batch size", least=1)
    clip_per_video: int | None = option(
        None, "clips drawn from one video; overrides subsampling in the aligner", least=1
    )
    num_video_per_batch: int | None = option(
        None,
        "videos in one item of the retrieval-batch data set; GDT: videos of a batch, where "
        "fairseq.dataset.batch_size is left out",
        least=1,
    )
    global_batch: int | None = option(
        None,
        "items of one update over all processes, counted as fairseq.dataset.batch_size counts them: the same "
        "batches in the same order on any number of processes that divides it; null: batch_size each",
        least=1,
    )
    num_iso_layer: int | None = option(None, "modality-isolated layers of single-encoder models", least=0)
    annotation_path: str | None = option(
        None, "folder of annotations: CrossTask's csv files, or the split lists of UCF101 or HMDB51"
    )
    on_missing: str = option(
        "skip",
        "ids without features, captions or index entry: skip = drop (counted and named) or error; N "
        "modalities: mask keeps what is there",
        one_of=("skip", "drop", "mask", "error"),
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(SharedSection):
    """`model:` which towers, and what of them is trained."""

    SECTION: ClassVar[str] = "model"

    model_cls: str | None = option(None, "fusion model class")
    mm_encoder_cls: str | None = option(None, "encoder of single-encoder models")
    video_encoder_cls: str | None = option(None, "video tower of two-tower models")
    text_encoder_cls: str | None = option(None, "text tower of two-tower models")
    layernorm_only: bool | None = option(None, "train LayerNorm weights and biases only")
    learning_rates: Mapping[str, float] | None = option(
        None, "part of a parameter's name -> its learning rate; others follow fairseq.optimization.lr"
    )
    weight_decays: Mapping[str, float] | None = option(
        None, "part of a parameter's name -> its weight decay; others: fairseq.optimization.weight_decay"
    )
    no_decay: list | None = option(None, "parts of names of parameters without weight decay")
    activation_checkpointing: bool = option(
        False, "compute transformer activations again in the backward pass instead of keeping them"
    )
    micro_batch: int | None = option(
        None, "clips that pass the towers at once in training; the loss still sees the whole batch", least=1
    )
    length_buckets: int | None = option(
        None,
        "groups by length that each tower reads one after the other in training, which saves padding",
        least=1,
    )
    packed: bool = option(
        False, "towers compute no padding: the positions of all clips that are read pass them as one row"
    )
    compile: bool = option(False, "torch.compile the towers")
    sync_bn: bool = option(False, "BatchNorm over the batches of all processes together")
    init: str = option(
        "pretrained",
        "pretrained: start the towers from bert_name's weights; random: from its config.json alone",
        one_of=("pretrained", "random"),
    )

    def without_weights(self) -> ModelConfig:
        """The same with nothing to start from, where the weights come from elsewhere."""
        changes: dict[str, Any] = {"init": "random", "init_from": None}
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class EvalConfig(SharedSection):
    """`eval:` where predictions go and how they are scored."""

    SECTION: ClassVar[str] = "eval"

    save_path: str | None = option(None, "folder of predictions; its parent is the checkpoint folder")
    compat: bool = option(False, "make the historic variant of a metric the headline number")
    valid_project: str | None = option(
        None, "test project file run at every validation; its numbers are logged as zero_shot_<name>"
    )
    tie_rule: str = option(
        "mean",
        "rank of a tied query: mean, optimistic or pessimistic",
        one_of=("mean", "optimistic", "pessimistic"),
    )
    bootstrap: int = option(
        1000, "bootstrap samples behind a 95 % interval; 0 switches intervals off", least=0
    )
    post_processing: Mapping[str, Any] = option(
        {},
        "clips: rows of their own for scores changed with the help of all test queries: dual_softmax, "
        "inverted_softmax or sinkhorn with their scale, csls with its neighbours",
    )
    false_negatives: str | None = option(
        None, "clips: csv query_id,gallery_id of further right items; recall with them stands beside"
    )
    probes: list = option(
        [],
        "clips: rows for one_second, shuffled or reversed seconds, and bag_of_words, beside the checkpoint",
    )
    baselines: list = option(
        [], "printed beside the checkpoint; ridge: RidgeBaseline, fitted to the pairs that it was trained on"
    )
    baseline_project: str | None = option(
        None, "project file whose training data baselines learn from; null: that of the checkpoint"
    )


@dataclass(frozen=True, kw_only=True)
class JobConfig(SharedSection):
    """`job:` when a job that does not get on is ended, and who writes checkpoints."""

    SECTION: ClassVar[str] = "job"

    timeout: float = option(
        600.0, "seconds without progress after which training is ended; 0: never", least=0
    )
    start_timeout: float = option(
        1800.0, "the same at the start, while batches are composed, and in zero-shot tests", least=0
    )
    sharded_saves: bool = option(
        False, "each process writes a share of a checkpoint, through torch.distributed.checkpoint"
    )


@dataclass(frozen=True, kw_only=True)
class Config(SharedSection):
    """A resolved project file."""

    SECTION: ClassVar[str] = ""

    source: str = ""  # the file it was read from, set by the loader
    plugins: list = option([], "modules imported first; the classes they register can be named in this file")
    task: str | None = option(None, "task class; null means Task")
    task_type: str | None = option(None, "default job type of locallaunch.py")
    slurm_config: str | None = option(None, "name of a SLURM resource set")
    project_dir: str | None = option(
        None, "pipelines: folder below projects/ and runs/ that the pipeline writes"
    )
    base_dir: str | None = option(None, "pipelines: folder below projects/ with the templates")
    run_task: list | None = option(None, "pipelines: files to run, nested lists run side by side")
    task_group: Mapping | None = option(None, "pipelines: group name -> overwriting keys and task_list")
    dataset: DatasetConfig = option(DatasetConfig, "data")
    fairseq: Mapping[str, Mapping[str, Any]] = option({}, "group -> flag -> value, passed through to fairseq")
    model: ModelConfig = option(ModelConfig, "model")
    loss: Mapping[str, Any | None] | None = option(None, "loss_cls and that loss's own keys; null: no loss")
    eval: EvalConfig = option(EvalConfig, "evaluation")
    job: JobConfig = option(JobConfig, "running")
    metric: str | None = option(None, "metric class")
    predictor: str | None = option(None, "predictor class")
    gen_param: Mapping[str, Any] | None = option(None, "extra arguments of caption generation")

    @property
    def trainer(self) -> Trainer:
        """What we read of `fairseq:` ourselves."""
        return Trainer.of(self.fairseq)

    @property
    def save_dir(self) -> Path:
        """The folder of checkpoints, where one must be named.

        Raises:
            ConfigError: there is none.
        """
        if not self.trainer.save_dir:
            key = "fairseq.checkpoint.save_dir"
            what = f"{key} is missing: training needs a folder for checkpoints."
            raise ConfigError([Problem(key, what, file=self.source)])
        return Path(self.trainer.save_dir)
