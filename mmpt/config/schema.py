"""Every key a YAML may hold, with its default and one line of meaning.

A missing key takes its default (mostly null), an unknown key is an error. Keys under `fairseq:` pass through
to fairseq, keys under `loss:` other than `loss_cls` belong to the dataclass beside that loss (`mmpt.losses`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpt.config.fields import Section, option


@dataclass(frozen=True, kw_only=True)
class DatasetConfig(Section):
    """`dataset:` which data, and how an item is cut from it."""

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
    tfeat_dir: str | None = option(None, "path prefix of token shards, ends with a dot")
    max_video_len: int | None = option(None, "video tokens (seconds) per clip")
    max_len: int | None = option(
        None, "video and text positions together; text tensors have max_len - max_video_len columns"
    )
    subsampling: int | None = option(None, "clips per item; also divides the batch size")
    clip_per_video: int | None = option(
        None, "clips drawn from one video; overrides subsampling in the aligner"
    )
    num_video_per_batch: int | None = option(None, "videos in one item of the retrieval-batch data set")
    sampled_min_len: int | None = option(None, "smallest text-token budget of a clip, inclusive")
    sampled_max_len: int | None = option(None, "largest text-token budget of a clip, inclusive")
    sampled_video_min_len: int | None = option(None, "smallest clip length in seconds, inclusive")
    sampled_video_max_len: int | None = option(None, "largest clip length in seconds, inclusive")
    sampler: str = option(
        "generator",
        "generator: per-item random streams; python: replay the historic stream of Python's random",
        one_of=("generator", "python"),
    )
    sort_clips: bool = option(
        True, "order the clips of a video by time, which the paragraph loss needs; false: as drawn"
    )
    views: list | None = option(
        None,
        "GDT views of a clip, some of orig, rev, shift, shiftrev in this order; subsampling states their "
        "number",
    )
    min_shift: int | None = option(
        None,
        "GDT: least seconds between a clip and its shifted view; null: max_video_len (of raw clips: any "
        "distance)",
    )
    text_reversal: str = option(
        "token",
        "GDT: text of a reversed view: words reversed (token), order of captions reversed (sentence), as "
        "it is (none)",
        one_of=("token", "sentence", "none"),
    )
    reversal: str = option(
        "sequence",
        "GDT: features of a reversed view: flipped in time (sequence), or of frames played backwards, "
        "files <id>_rev.npy (precomputed)",
        one_of=("sequence", "precomputed"),
    )
    num_iso_layer: int | None = option(None, "modality-isolated layers of single-encoder models")
    keep_prob: float = option(1.0, "probability of keeping the neighbouring caption while a clip grows")
    mlm_probability: float = option(0.15, "share of text tokens masked")
    mfm_probability: float = option(0.15, "share of video tokens masked")
    mm_prob: float = option(0.0, "probability of masking a whole modality")
    mm_type: str = option("full", "text mode of whole-text masking")
    lazy_vfeat_mask: bool = option(False, "leave zeroing masked frames to the model")
    sliding_window: int | None = option(None, "stride of windows over a long video, seconds")
    sliding_window_size: int | None = option(None, "length of such a window, seconds")
    full_test_path: str | None = option(None, "MSR-VTT full test list, whose rest joins training")
    jsfusion_path: str | None = option(None, "MSR-VTT 1k-A test list")
    json_path: str | None = option(None, "MSR-VTT captions")
    dup: int | None = option(None, "passes over the training table per epoch")
    trainval_annotation: str | None = option(None, "YouCook2 annotation JSON")
    use_annotation_text: bool = option(
        False, "take the sentence of the annotation instead of the pickled caption"
    )
    train_csv_path: str | None = option(None, "CrossTask training videos")
    val_csv_path: str | None = option(None, "CrossTask validation videos")
    primary_path: str | None = option(None, "CrossTask primary tasks")
    related_path: str | None = option(None, "CrossTask related tasks")
    annotation_path: str | None = option(
        None, "folder of annotations: CrossTask's csv files, or the split lists of UCF101 or HMDB51"
    )
    n_train: int | None = option(None, "CrossTask training videos per primary task")
    anno_path: str | None = option(None, "HTM-Align annotation JSON")
    way: int | None = option(None, "few-shot: classes in an episode")
    shots: int | None = option(None, "few-shot: labelled videos per class of an episode")
    queries: int | None = option(None, "few-shot: videos to classify per class of an episode")
    episodes: int | None = option(None, "few-shot: episodes in an epoch or a test")
    caption_pkl_path: str | None = option(None, "pickle of timed captions for pre-tokenisation")
    target_dir: str | None = option(None, "output folder of pre-tokenisation")
    on_damaged: str = option(
        "error",
        "shards that are missing, truncated or contradictory: error, or skip their videos (named)",
        one_of=("error", "skip"),
    )
    read_ahead: bool = option(
        True,
        "have the system fetch each video's rows of a shard in one go, and nothing around them; false: "
        "its own way",
    )
    cache_dir: str | None = option(
        None, "where copies of remote shards (s3://... in vfeat_dir, tfeat_dir) are kept; null: ~/.cache/mmpt"
    )
    on_missing: str = option(
        "skip",
        "ids without features, captions or index entry: skip = drop (counted and named) or error; N "
        "modalities: mask keeps what is there",
        one_of=("skip", "drop", "mask", "error"),
    )
    modalities: Mapping[str, Mapping[str, Any]] | None = option(
        None,
        "N modalities: name -> {path, width, rate, max_len, map, versions}; without path: subtitles; null "
        "takes an included one out",
    )
    raw: Mapping[str, Any] | None = option(
        None,
        "clips straight from video files: {frames, fps, size, sound_s, sample_rate, filters, "
        "spec_augment, volume}",
    )
    modality_dropout: float = option(
        0.0, "N modalities: probability of hiding each modality of a training item, never all"
    )
    frame_sampling: str = option(
        "chunk",
        "N modalities, streams longer than max_len: one of each chunk at random (chunk_random), its "
        "middle (chunk_middle), uniform; "
        "chunk = random in training, middle else",
        one_of=("chunk", "chunk_random", "chunk_middle", "uniform"),
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """`model:` which towers, and what of them is trained."""

    model_cls: str | None = option(None, "fusion model class")
    mm_encoder_cls: str | None = option(None, "encoder of single-encoder models")
    video_encoder_cls: str | None = option(None, "video tower of two-tower models")
    text_encoder_cls: str | None = option(None, "text tower of two-tower models")
    num_hidden_video_layers: int | None = option(None, "layers of the video tower")
    use_seg_emb: bool | None = option(None, "adds the unused segment embedding that VLM checkpoints hold")
    max_decode_length: int | None = option(None, "longest generated caption, the three prompt ids included")
    layernorm_only: bool | None = option(None, "train LayerNorm weights and biases only")
    activation_checkpointing: bool = option(
        False, "compute transformer activations again in the backward pass instead of keeping them"
    )
    micro_batch: int | None = option(
        None, "clips that pass the towers at once in training; the loss still sees the whole batch"
    )
    length_buckets: int | None = option(
        None, "groups by length that each tower reads one after the other in training, which saves padding"
    )
    compile: bool = option(False, "torch.compile the towers")
    learnable_temperature: bool = option(
        False, "the model owns a trained logit_scale, starting at ln(1/0.07), which losses then read"
    )
    feature_dim: int = option(512, "width of the features, for models without a transformer")
    contra_dim: int = option(512, "MMGram: width of the common space")
    modality_layers: Mapping[str, int] | None = option(
        None, "MMGram: modality -> layers of its tower; null: num_hidden_video_layers"
    )
    captions: bool = option(
        True,
        "MMGram: embed the captions; false: the modalities alone, for audio-video training without labels",
    )
    matching_head: bool = option(
        False,
        "MMGram: cross-attention and a head that tells matched pairs, for loss.dam_weight and eval.rerank",
    )
    matching_condition: list | None = option(
        None, "MMGram: modalities that the matching head reads; null: all"
    )
    encoders: Mapping[str, Mapping[str, Any]] | None = option(
        None, "GRAM: video and audio -> {name, weights, sizes} of what reads its files; null: features"
    )
    frozen: list | None = option(
        None,
        "MMGram, GRAM: modalities (text among them) whose towers are not trained, only their projections",
    )
    crops: Mapping[str, Any] | None = option(
        None, "MMSTiCA: modality that is cropped, number and size of its crops"
    )
    pooling: Mapping[str, Any] | None = option(
        None, "MMSTiCA: attention pooling of that modality: layers, heads, ffn, positional, ..."
    )
    augment: Mapping[str, Any] | None = option(
        None, "MMSTiCA: what tells two versions of a clip apart: feature_dropout, frame_dropout, noise"
    )
    video_depth: int = option(18, "RawAVGDT: layers of the video network, 18 or 34")
    audio_depth: int = option(9, "RawAVGDT: layers of the audio network, 9 or 18")
    init_from: str | None = option(
        None, "MMGram: two-tower checkpoint whose video and text towers it starts from"
    )
    init: str = option(
        "pretrained",
        "pretrained: start the towers from bert_name's weights; random: from its config.json alone",
        one_of=("pretrained", "random"),
    )


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Section):
    """`eval:` where predictions go and how they are scored."""

    save_path: str | None = option(None, "folder of predictions; its parent is the checkpoint folder")
    compat: bool = option(False, "make the historic variant of a metric the headline number")
    protocol: str = option(
        "norton", "whose cost offsets and scales full-video alignment uses", one_of=("norton", "tempclr")
    )
    valid_project: str | None = option(
        None, "test project file run at every validation; its numbers are logged as zero_shot_<name>"
    )
    tie_rule: str = option(
        "mean",
        "rank of a tied query: mean, optimistic or pessimistic",
        one_of=("mean", "optimistic", "pessimistic"),
    )
    modalities: list | None = option(
        None,
        "N modalities: subsets compared, e.g. [tv, tva, tvas]: t and first letters; null: all modalities",
    )
    scores: list = option(
        ["volume"], "N modalities: volume, distance, logvolume, cosine, triangle, eigenvalue"
    )
    rerank: int = option(
        0, "N modalities: best items of the last subset that the matching head ranks again; 0: none"
    )
    rerank_mode: str = option(
        "replace",
        "how: probability instead of score, added to it, or among equals",
        one_of=("replace", "add", "tiebreak"),
    )
    bootstrap: int = option(1000, "bootstrap samples behind a 95 % interval; 0 switches intervals off")


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """A resolved project file."""

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
    loss: Mapping[str, Any] | None = option(None, "loss_cls and that loss's own keys; null: no loss")
    eval: EvalConfig = option(EvalConfig, "evaluation")
    metric: str | None = option(None, "metric class")
    predictor: str | None = option(None, "predictor class")
    gen_param: Mapping[str, Any] | None = option(None, "extra arguments of caption generation")
    retri_epoch: int | None = option(None, "first epoch with retrieval-augmented batches")
    vectorpool_cls: str | None = option(None, "vector pool class")
    retriever_cls: str | None = option(None, "retriever class")
    num_cands: int | None = option(None, "neighbours requested per video")
    retri_index: str = option(
        "exact", "neighbour search: exact (torch), or with faiss flatl2, innerproduct, pq"
    )
    retri_metric: str = option("l2", "closeness of the exact search: l2 or innerproduct")
    centroids: int = option(512, "cells of the approximate index")
    examples_per_cent_to_train: int = option(48, "training vectors per cell")
    retri_nprobe: int = option(1, "cells searched per video; 1 is the historic value")
