"""Every key a YAML may hold, with its default and one line of meaning.

A missing key takes its default (mostly null), an unknown key is an error. Keys under `fairseq:` pass through
to fairseq, keys under `loss:` other than `loss_cls` belong to the dataclass beside that loss (`mmpt.losses`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def key(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A declared YAML key; a class, dict or list as default is made anew for each configuration."""
    metadata = {"help": help, "choices": choices}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """`dataset:` which data, and how an item is cut from it."""

    meta_processor: str | None = key(None, "class that lists the items of the split")
    video_processor: str | None = key(None, "class that reads the features of one video")
    text_processor: str | None = key(None, "class that reads or tokenises the text of one item")
    aligner: str | None = key(None, "class that joins features and tokens into padded tensors")
    bert_name: str | None = key(
        None, "tokenizer and BERT: a hub name or a local folder with config.json and vocab.txt"
    )
    use_fast: bool | None = key(None, "fast tokenizer flag, passed on to transformers")
    split: str | None = key(None, "train, valid or test; a test YAML says test", ("train", "valid", "test"))
    train_path: str | None = key(None, "list of training items; null: no training")
    val_path: str | None = key(None, "list of validation items; null: no validation")
    test_path: str | None = key(None, "list of test items")
    vfeat_dir: str | None = key(None, "folder of video features: <id>.npy files or shards")
    tfeat_dir: str | None = key(None, "path prefix of token shards, ends with a dot")
    max_video_len: int | None = key(None, "video tokens (seconds) per clip")
    max_len: int | None = key(
        None, "video and text positions together; text tensors have max_len - max_video_len columns"
    )
    subsampling: int | None = key(None, "clips per item; also divides the batch size")
    clip_per_video: int | None = key(None, "clips drawn from one video; overrides subsampling in the aligner")
    num_video_per_batch: int | None = key(None, "videos in one item of the retrieval-batch data set")
    sampled_min_len: int | None = key(None, "smallest text-token budget of a clip, inclusive")
    sampled_max_len: int | None = key(None, "largest text-token budget of a clip, inclusive")
    sampled_video_min_len: int | None = key(None, "smallest clip length in seconds, inclusive")
    sampled_video_max_len: int | None = key(None, "largest clip length in seconds, inclusive")
    sampler: str = key(
        "generator",
        "generator: per-item random streams; python: replay the historic stream of Python's random",
        ("generator", "python"),
    )
    sort_clips: bool = key(
        True, "order the clips of a video by time, which the paragraph loss needs; false: as drawn"
    )
    views: list | None = key(
        None,
        "GDT views of a clip, some of orig, rev, shift, shiftrev in this order; subsampling states their "
        "number",
    )
    min_shift: int | None = key(
        None,
        "GDT: least seconds between a clip and its shifted view; null: max_video_len (of raw clips: any "
        "distance)",
    )
    text_reversal: str = key(
        "token",
        "GDT: text of a reversed view: words reversed (token), order of captions reversed (sentence), as "
        "it is (none)",
        ("token", "sentence", "none"),
    )
    reversal: str = key(
        "sequence",
        "GDT: features of a reversed view: flipped in time (sequence), or of frames played backwards, "
        "files <id>_rev.npy (precomputed)",
        ("sequence", "precomputed"),
    )
    num_iso_layer: int | None = key(None, "modality-isolated layers of single-encoder models")
    keep_prob: float = key(1.0, "probability of keeping the neighbouring caption while a clip grows")
    mlm_probability: float = key(0.15, "share of text tokens masked")
    mfm_probability: float = key(0.15, "share of video tokens masked")
    mm_prob: float = key(0.0, "probability of masking a whole modality")
    mm_type: str = key("full", "text mode of whole-text masking")
    lazy_vfeat_mask: bool = key(False, "leave zeroing masked frames to the model")
    sliding_window: int | None = key(None, "stride of windows over a long video, seconds")
    sliding_window_size: int | None = key(None, "length of such a window, seconds")
    full_test_path: str | None = key(None, "MSR-VTT full test list, whose rest joins training")
    jsfusion_path: str | None = key(None, "MSR-VTT 1k-A test list")
    json_path: str | None = key(None, "MSR-VTT captions")
    dup: int | None = key(None, "passes over the training table per epoch")
    trainval_annotation: str | None = key(None, "YouCook2 annotation JSON")
    use_annotation_text: bool = key(
        False, "take the sentence of the annotation instead of the pickled caption"
    )
    train_csv_path: str | None = key(None, "CrossTask training videos")
    val_csv_path: str | None = key(None, "CrossTask validation videos")
    primary_path: str | None = key(None, "CrossTask primary tasks")
    related_path: str | None = key(None, "CrossTask related tasks")
    annotation_path: str | None = key(
        None, "folder of annotations: CrossTask's csv files, or the split lists of UCF101 or HMDB51"
    )
    n_train: int | None = key(None, "CrossTask training videos per primary task")
    anno_path: str | None = key(None, "HTM-Align annotation JSON")
    way: int | None = key(None, "few-shot: classes in an episode")
    shots: int | None = key(None, "few-shot: labelled videos per class of an episode")
    queries: int | None = key(None, "few-shot: videos to classify per class of an episode")
    episodes: int | None = key(None, "few-shot: episodes in an epoch or a test")
    caption_pkl_path: str | None = key(None, "pickle of timed captions for pre-tokenisation")
    target_dir: str | None = key(None, "output folder of pre-tokenisation")
    on_damaged: str = key(
        "error",
        "shards that are missing, truncated or contradictory: error, or skip their videos (named)",
        ("error", "skip"),
    )
    read_ahead: bool = key(
        True,
        "have the system fetch each video's rows of a shard in one go, and nothing around them; false: "
        "its own way",
    )
    cache_dir: str | None = key(
        None, "where copies of remote shards (s3://... in vfeat_dir, tfeat_dir) are kept; null: ~/.cache/mmpt"
    )
    on_missing: str = key(
        "skip",
        "ids without features, captions or index entry: skip = drop (counted and named) or error; N "
        "modalities: mask keeps what is there",
        ("skip", "drop", "mask", "error"),
    )
    modalities: Mapping[str, Mapping[str, Any]] | None = key(
        None,
        "N modalities: name -> {path, width, rate, max_len, map, versions}; without path: subtitles; null "
        "takes an included one out",
    )
    raw: Mapping[str, Any] | None = key(
        None,
        "clips straight from video files: {frames, fps, size, sound_s, sample_rate, filters, "
        "spec_augment, volume}",
    )
    modality_dropout: float = key(
        0.0, "N modalities: probability of hiding each modality of a training item, never all"
    )
    frame_sampling: str = key(
        "chunk",
        "N modalities, streams longer than max_len: one of each chunk at random (chunk_random), its "
        "middle (chunk_middle), uniform; "
        "chunk = random in training, middle else",
        ("chunk", "chunk_random", "chunk_middle", "uniform"),
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """`model:` which towers, and what of them is trained."""

    model_cls: str | None = key(None, "fusion model class")
    mm_encoder_cls: str | None = key(None, "encoder of single-encoder models")
    video_encoder_cls: str | None = key(None, "video tower of two-tower models")
    text_encoder_cls: str | None = key(None, "text tower of two-tower models")
    num_hidden_video_layers: int | None = key(None, "layers of the video tower")
    use_seg_emb: bool | None = key(None, "adds the unused segment embedding that VLM checkpoints hold")
    max_decode_length: int | None = key(None, "longest generated caption, the three prompt ids included")
    layernorm_only: bool | None = key(None, "train LayerNorm weights and biases only")
    activation_checkpointing: bool = key(
        False, "compute transformer activations again in the backward pass instead of keeping them"
    )
    micro_batch: int | None = key(
        None, "clips that pass the towers at once in training; the loss still sees the whole batch"
    )
    length_buckets: int | None = key(
        None, "groups by length that each tower reads one after the other in training, which saves padding"
    )
    compile: bool = key(False, "torch.compile the towers")
    learnable_temperature: bool = key(
        False, "the model owns a trained logit_scale, starting at ln(1/0.07), which losses then read"
    )
    feature_dim: int = key(512, "width of the features, for models without a transformer")
    contra_dim: int = key(512, "MMGram: width of the common space")
    modality_layers: Mapping[str, int] | None = key(
        None, "MMGram: modality -> layers of its tower; null: num_hidden_video_layers"
    )
    captions: bool = key(
        True,
        "MMGram: embed the captions; false: the modalities alone, for audio-video training without labels",
    )
    matching_head: bool = key(
        False,
        "MMGram: cross-attention and a head that tells matched pairs, for loss.dam_weight and eval.rerank",
    )
    matching_condition: list | None = key(None, "MMGram: modalities that the matching head reads; null: all")
    frozen: list | None = key(
        None, "MMGram: modalities (text among them) whose towers are not trained, only their projections"
    )
    crops: Mapping[str, Any] | None = key(
        None, "MMSTiCA: modality that is cropped, number and size of its crops"
    )
    pooling: Mapping[str, Any] | None = key(
        None, "MMSTiCA: attention pooling of that modality: layers, heads, ffn, positional, ..."
    )
    augment: Mapping[str, Any] | None = key(
        None, "MMSTiCA: what tells two versions of a clip apart: feature_dropout, frame_dropout, noise"
    )
    video_depth: int = key(18, "RawAVGDT: layers of the video network, 18 or 34")
    audio_depth: int = key(9, "RawAVGDT: layers of the audio network, 9 or 18")
    init_from: str | None = key(
        None, "MMGram: two-tower checkpoint whose video and text towers it starts from"
    )
    init: str = key(
        "pretrained",
        "pretrained: start the towers from bert_name's weights; random: from its config.json alone",
        ("pretrained", "random"),
    )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """`eval:` where predictions go and how they are scored."""

    save_path: str | None = key(None, "folder of predictions; its parent is the checkpoint folder")
    compat: bool = key(False, "make the historic variant of a metric the headline number")
    protocol: str = key(
        "norton", "whose cost offsets and scales full-video alignment uses", ("norton", "tempclr")
    )
    valid_project: str | None = key(
        None, "test project file run at every validation; its numbers are logged as zero_shot_<name>"
    )
    tie_rule: str = key(
        "mean", "rank of a tied query: mean, optimistic or pessimistic", ("mean", "optimistic", "pessimistic")
    )
    modalities: list | None = key(
        None,
        "N modalities: subsets compared, e.g. [tv, tva, tvas]: t and first letters; null: all modalities",
    )
    scores: list = key(["volume"], "N modalities: volume, distance, logvolume, cosine, triangle, eigenvalue")
    rerank: int = key(
        0, "N modalities: best items of the last subset that the matching head ranks again; 0: none"
    )
    rerank_mode: str = key(
        "replace",
        "how: probability instead of score, added to it, or among equals",
        ("replace", "add", "tiebreak"),
    )
    bootstrap: int = key(1000, "bootstrap samples behind a 95 % interval; 0 switches intervals off")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A resolved project file."""

    source: str = key("", "the file it was read from (set by the loader, not a YAML key)")
    plugins: list = key([], "modules imported first; the classes they register can be named in this file")
    task: str | None = key(None, "task class; null means Task")
    task_type: str | None = key(None, "default job type of locallaunch.py")
    slurm_config: str | None = key(None, "name of a SLURM resource set")
    project_dir: str | None = key(
        None, "pipelines: folder below projects/ and runs/ that the pipeline writes"
    )
    base_dir: str | None = key(None, "pipelines: folder below projects/ with the templates")
    run_task: list | None = key(None, "pipelines: files to run, nested lists run side by side")
    task_group: Mapping | None = key(None, "pipelines: group name -> overwriting keys and task_list")
    dataset: DatasetConfig = key(DatasetConfig, "data")
    fairseq: Mapping[str, Mapping[str, Any]] = key({}, "group -> flag -> value, passed through to fairseq")
    model: ModelConfig = key(ModelConfig, "model")
    loss: Mapping[str, Any] | None = key(None, "loss_cls and that loss's own keys; null: no loss")
    eval: EvalConfig = key(EvalConfig, "evaluation")
    metric: str | None = key(None, "metric class")
    predictor: str | None = key(None, "predictor class")
    gen_param: Mapping[str, Any] | None = key(None, "extra arguments of caption generation")
    retri_epoch: int | None = key(None, "first epoch with retrieval-augmented batches")
    vectorpool_cls: str | None = key(None, "vector pool class")
    retriever_cls: str | None = key(None, "retriever class")
    num_cands: int | None = key(None, "neighbours requested per video")
    retri_index: str = key("exact", "neighbour search: exact (torch), or with faiss flatl2, innerproduct, pq")
    retri_metric: str = key("l2", "closeness of the exact search: l2 or innerproduct")
    centroids: int = key(512, "cells of the approximate index")
    examples_per_cent_to_train: int = key(48, "training vectors per cell")
    retri_nprobe: int = key(1, "cells searched per video; 1 is the historic value")
