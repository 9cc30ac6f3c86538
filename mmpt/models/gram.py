"""GRAM and VAST end to end: frames, sound, words and depth through their encoders into one space, a matching
head, and a writer.

The parameters carry the names of the released checkpoints (`model_step_<n>.pt`). Sources: GRAM (arXiv
2412.11959), VAST (arXiv 2305.18500).

Shape letters: B items, G frames or clips of a modality, L tokens of one of them, W width of its encoder, H
width of the text encoder, D = model.contra_dim, T caption columns, S positions of a text, C vocabulary, M
tokens of a condition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmpt.backbones.eva_clip import resize_grid
from mmpt.backbones.tokens import token_tower
from mmpt.config import required, schema
from mmpt.config.conditions import LETTERS, letters_of
from mmpt.config.fields import option
from mmpt.models import sequence_layout as layout
from mmpt.models.bert import read_bert_config
from mmpt.models.generation import beam_search, greedy_search, sample_search
from mmpt.models.mmgram import MatchingKeys, columns_in_use, columns_of_ranks
from mmpt.models.multimodal_bert import MultimodalBert, Writer
from mmpt.models.packing import chosen
from mmpt.models.transformermodel import build_encoder
from mmpt.modules.layers import masked_mean
from mmpt.modules.matching import GramMatchHead, bind_matcher
from mmpt.ops.precision import under_autocast
from mmpt.registry import MODELS
from mmpt.utils.columns import NO_LABEL, known_columns

TOWERS = {
    "v": "video",
    "a": "audio",
    "d": "video",
}  # letter -> entry of model.encoders; depth is seen by the video's
INITIAL_TEMPERATURE, LEAST_TEMPERATURE = 0.07, 1e-4
INITIAL_STD = 0.02
JOINT = ("va", "vs", "vas")  # what has a head of its own besides single modalities
NORM_EPS = 1e-12
OLD_NAMES = {"video_": "vision_", "evaclip_model.": "vision_encoder.", "clip_model.": "vision_encoder."}


class Stream(NamedTuple):
    """One modality of a batch, encoded."""

    tokens: Tensor  # (B, G, L, W)
    mask: Tensor  # (B, G) frames or clips that are there
    pooled: Tensor  # (B, W)


class Items(NamedTuple):
    """A batch of items, encoded."""

    streams: dict[str, Stream]  # by letter
    present: dict[str, Tensor]  # by name: (B,) bool

    def repeated(self, times: Tensor) -> Items:
        """Item i times[i] times over, (B,) -> sum of times."""
        streams = {
            letter: Stream(*(x.repeat_interleave(times, dim=0) for x in stream))
            for letter, stream in self.streams.items()
        }
        return Items(streams, {name: there.repeat_interleave(times) for name, there in self.present.items()})


@MODELS.register()
class GRAM(nn.Module):
    """Captions and up to four modalities of `dataset.modalities`, told by their first letters: video, audio,
    subtitle, depth.

    A modality read from files passes its encoder of `model.encoders`; without an entry there, its features
    are taken as what such an encoder would have given, one token each:

        model:
          model_cls: GRAM
          encoders:
            video: {name: evaclip01_giant}        # or image:<hub id or folder>; depth passes it, too
            audio: {name: beats}                  # or audio:<hub id or folder>

    One BERT reads captions and subtitles alone, and captions together with a condition (the tokens of the
    other modalities) for the matching head and for writing. As in the release, padding of a subtitle is part
    of its condition; a missing modality is not.

    `model.frozen` names encoders that are not trained (video, audio, text) and stay in evaluation mode.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MatchingKeys):
        """Encoders and the matching head."""

        encoders: Mapping[str, Mapping[str, Any]] | None = option(
            None, "video and audio -> {name, weights, sizes} of what reads its files; null: features"
        )
        learnable_temperature: bool = option(
            False, "contra_temp, the temperature, is trained, and read by losses; it starts at 0.07"
        )

    def __init__(self, config: schema.Config):
        super().__init__()
        self.config = config
        entries = required(self.config, "dataset.modalities", self)
        self.names = list(entries)
        self.letters = self._letters()
        self.bert_config = read_bert_config(required(self.config, "dataset.bert_name", self))
        hidden, width = self.bert_config.hidden_size, config.model.contra_dim
        learned = bool(config.model.learnable_temperature)
        self.contra_temp = nn.Parameter(torch.tensor(INITIAL_TEMPERATURE), requires_grad=learned)
        encoders = config.model.encoders or {}
        unknown = [name for name in encoders if name not in TOWERS.values()]
        if unknown:
            raise ValueError(
                f"{self._source}: model.encoders names {', '.join(unknown)}; expected video and audio."
            )
        if self._sees() and encoders.get("video"):
            self.vision_encoder = nn.ModuleDict({"visual": token_tower(**encoders["video"])})
        if "a" in self.letters and encoders.get("audio"):
            self.audio_encoder = token_tower(**encoders["audio"])
        self.multimodal_encoder = build_encoder(MultimodalBert, self.bert_config, config)
        self.multimodal_encoder.bert.add_cross_attention()
        widths = {letter: self._width(letter, entries) for letter in self.letters}
        self.contra_head_t = ContrastiveHead(hidden, width)
        for letter in self.letters:
            self.add_module(f"contra_head_{letter}", ContrastiveHead(widths[letter], width))
        for joint in JOINT:
            if set(joint) <= set(self.letters):
                self.add_module(
                    f"contra_head_{joint}", nn.Linear(sum(widths[letter] for letter in joint), width)
                )
        self.itm_head = GramMatchHead(hidden)
        if self._sees():
            self.hidden_trans_vision_multimodal = _to_hidden(widths.get("v") or widths["d"], hidden)
            self.vision_frame_embedding = _small_normal(
                1, self._places("v" if "v" in self.letters else "d", entries), hidden
            )
            self.vision_type_embeddings = _small_normal(1, 1, hidden)
        if "a" in self.letters:
            self.hidden_trans_audio_multimodal = _to_hidden(widths["a"], hidden)
            self.audio_frame_embedding = _small_normal(1, self._places("a", entries), hidden)
            self.audio_type_embeddings = _small_normal(1, 1, hidden)
        if "s" in self.letters:
            self.hidden_trans_subtitle_multimodal = _to_hidden(hidden, hidden)
            self.subtitle_type_embeddings = _small_normal(1, 1, hidden)
        self._frozen = self._freeze(config.model.frozen or [])

    # --------------------------------------------------------------------------------------------- what it is

    @property
    def stream_names(self) -> list[str]:
        """Modalities that are streams of frames, clips or features; the others are subtitles."""
        return [name for letter, name in self.letters.items() if letter != "s"]

    @property
    def returns(self) -> frozenset[str]:
        """Names of what `forward` gives."""
        pooled = (f"pooled_{name}" for name in ("text", *self.names))
        temperature = {"logit_scale"} if self.config.model.learnable_temperature else set()
        matcher = {"matcher", "matchers"} if self.config.model.matching_head else set()
        joint = (f"joint_{subset}" for subset in self._joint_of(self.letters))
        return frozenset({*pooled, *joint, "present", "word_logits"} | temperature | matcher)

    def order_sensitive(self, name: str) -> bool:
        """Whether the embedding of a modality changes with the order of its positions: frames and clips are
        averaged.
        """
        return self.letters.get(name[0]) != name or name[0] == "s"

    @property
    def matcher(self) -> Callable[..., Tensor] | None:
        """What a predictor that ranks again asks for; None without `model.matching_head`."""
        return self._match_logits if self.config.model.matching_head else None

    def train(self, mode: bool = True) -> GRAM:
        """Frozen encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in self._frozen:
            encoder.eval()
        return self

    # --------------------------------------------------------------------------------------------- embeddings

    def forward(self, caps: Tensor, cmasks: Tensor, **batch: Any) -> dict[str, Any]:
        """B items with a caption each.

        Returns:
            `pooled_text`, `pooled_<name>` (B, D) unit rows, `present`, and for losses `word_logits` (see
            `GRAM.word_logits`), `matcher` and `matchers` (of a condition) with `model.matching_head`,
            `logit_scale` with `model.learnable_temperature`; `joint_<letters>` (B, D) unit rows of one, two
            or three modalities together. Of captions that belong to one condition (`caps_<letters>`, see
            `dataset.condition_captions`) `text_<letters>`.
        """
        items = self.encode(caps, present=batch.pop("present", None), **batch)
        texts = {"": (caps, cmasks, known_columns("cmasks", batch))}
        for x in _conditions(batch):
            texts[x] = batch[f"caps_{x}"], batch[f"cmasks_{x}"], known_columns(f"cmasks_{x}", batch)
        output: dict[str, Any] = self.embeddings(items) | {"present": items.present}
        for x, text in texts.items():
            output[f"text_{x}" if x else "pooled_text"] = self.encode_text(*text)
        if self.config.model.learnable_temperature:
            output["logit_scale"] = -self.contra_temp.clamp_min(LEAST_TEMPERATURE).log()
        if self.config.model.matching_head:

            def matcher(condition: str, own: str = "") -> Callable[[Tensor, Tensor], Tensor]:
                ids, mask, known = texts.get(own, texts[""])
                n = columns_of_ranks(known)
                tokens = self.condition(items, condition)
                return bind_matcher(self._match_logits, ids[:, :n], mask[:, :n], *tokens)

            output["matcher"] = matcher(self.matching_condition(items))
            output["matchers"] = lambda condition: matcher(condition, letters_of(condition))
        output["word_logits"] = under_autocast(functools.partial(self.word_logits, items), caps)
        return output

    def encode_items(
        self, caps: Tensor, cmasks: Tensor, present: Tensor | None = None, **batch: Tensor
    ) -> dict[str, Any]:
        """The modalities of B items, without their captions.

        Args:
            caps, cmasks: (B, >= 2), read for the number of items alone.
            present: (B, K) bool in the order of dataset.modalities; None: all there.
            batch: see `encode`.

        Returns:
            `pooled_<name>`, `joint_<letters>` (B, D), `present`: name -> (B,) bool, and with
            `model.matching_head` `condition` (B, M, H), `condition_mask` (B, M).
        """
        items = self.encode(caps, present=present, **batch)
        output: dict[str, Any] = self.embeddings(items) | {"present": items.present}
        if self.config.model.matching_head:
            output["condition"], output["condition_mask"] = self.condition(
                items, self.matching_condition(items)
            )
        return output

    def encode(self, caps: Tensor, present: Tensor | None = None, **batch: Tensor) -> Items:
        """Every modality of B items through its encoder.

        Args:
            caps: (B, ..) read for the number of items alone.
            present: (B, K) bool; None: all there.
            batch: `<name>_feats` and `<name>_masks` (B, G) of each stream: frames (B, G, 3, pixels, pixels),
                spectrograms (B, G, time, mel filters), or features (B, G, W); `<name>_caps`, `<name>_cmasks`
                (B, S) of subtitles.

        A batch of a set that has fewer modalities (see `MixedTask`) says nothing of the others.
        """
        there = [name for name in self.names if f"{name}_{'caps' if name[0] == 's' else 'feats'}" in batch]
        names = there or self.names
        if present is None:
            present = torch.ones(len(caps), len(names), dtype=torch.bool, device=caps.device)
        if present.shape[1] != len(names):
            raise ValueError(
                f"{self._source}: the batch has {', '.join(names)}, and `present` has {present.shape[1]} "
                f"columns; the model has {', '.join(self.names)}."
            )
        letters = {letter: name for letter, name in self.letters.items() if name in names}
        streams = {letter: self._encode(letter, name, batch) for letter, name in letters.items()}
        return Items(streams, dict(zip(names, present.unbind(1), strict=True)))

    def encode_text(self, caps: Tensor, cmasks: Tensor, columns: int | None = None) -> Tensor:
        """Captions (N, T), of which so many columns are in use -> unit rows (N, D)."""
        n = columns_in_use(cmasks, columns)
        return self._unit(self.contra_head_t(self._read(caps[:, :n], cmasks[:, :n])[:, 0]))

    def embeddings(self, items: Items) -> dict[str, Tensor]:
        """Unit rows (B, D): `joint_<letters>` of the modalities that have a head, alone or together, and as
        `pooled_<name>` those of each alone.
        """
        found = {x: self.joint_embedding(items, x) for x in self._joint_of(items.streams)}
        pooled = {f"pooled_{self.letters[x]}": found[x] for x in items.streams}
        return pooled | {f"joint_{x}": embedding for x, embedding in found.items()}

    def embed_modality(self, name: str, caps: Tensor, cmasks: Tensor, **batch: Tensor) -> Tensor:
        """Unit rows (B, D) of one modality alone; `batch` as in `encode`, captions are not read."""
        stream = self._encode(name[0], name, batch)
        return self._unit(getattr(self, f"contra_head_{name[0]}")(stream.pooled))

    def joint_embedding(self, items: Items, subset: str) -> Tensor:
        """Unit rows (B, D) of va, vs or vas together, as VAST compares them with texts by cosine; of one
        modality alone those of its own head.
        """
        return self._unit(
            getattr(self, f"contra_head_{subset}")(
                torch.cat([items.streams[x].pooled for x in subset], dim=1)
            )
        )

    # ----------------------------------------------------------------------------------- matching and writing

    def matching_condition(self, items: Items) -> str:
        """Letters that the matching head reads: `model.matching_condition`, or as released: video and audio
        in training, the last of `eval.modalities` otherwise; in training those of them that the batch has.
        """
        chosen = "".join(name[0] for name in self.config.model.matching_condition or ())
        if self.training:
            return "".join(letter for letter in chosen or "va" if letter in items.streams)
        return chosen or (self.config.eval.modalities or ["".join(self.letters)])[-1]

    def condition(self, items: Items, subset: str) -> tuple[Tensor, Tensor]:
        """Tokens of some modalities as one sequence: (B, M, H), and which are there (B, M).

        Args:
            items: the batch.
            subset: first letters, such as tva (t, the text itself, is left out).

        Raises:
            ValueError: a letter of no modality, or none at all.
        """
        letters = [letter for letter in LETTERS if letter in subset]
        strange = [letter for letter in subset if letter != "t" and letter not in items.streams]
        if strange or not letters:
            what = f"expected first letters of {', '.join(items.present)}, got {', '.join(strange) or 'none'}"
            raise ValueError(f"{self._source}: condition {subset!r}: {what}.")
        tokens, masks = [], []
        for letter in letters:
            name, stream = self.letters[letter], items.streams[letter]
            kind = {"v": "vision", "d": "vision", "a": "audio", "s": "subtitle"}[letter]
            hidden = getattr(self, f"hidden_trans_{kind}_multimodal")(stream.tokens)  # (B, G, L, H)
            if kind != "subtitle":
                hidden = (
                    hidden + stretched(getattr(self, f"{kind}_frame_embedding"), hidden.shape[1])[:, :, None]
                )
            tokens.append(hidden.flatten(1, 2) + getattr(self, f"{kind}_type_embeddings"))
            there = stream.mask & items.present[name][:, None]
            masks.append(there.repeat_interleave(hidden.shape[2], dim=1))
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)

    def match(self, caps: Tensor, cmasks: Tensor, condition: Tensor, condition_mask: Tensor) -> Tensor:
        """Probability (n,) that text i (T columns) belongs to item i, whose condition `encode_items`
        returned.
        """
        return self._match_logits(caps, cmasks, condition, condition_mask).softmax(1)[:, 1]

    def word_logits(
        self,
        items: Items,
        subset: str,
        caps: Tensor,
        cmasks: Tensor,
        labels: Tensor,
        question_caps: Tensor | None = None,
        question_cmasks: Tensor | None = None,
        n_labels: int | None = None,
    ) -> Tensor:
        """Scores (n, C) of the n labelled words of texts in which some words are masked, each read with the
        words before it.

        Args:
            items: what the texts are about.
            subset: first letters of the modalities read, such as tva.
            caps, cmasks: (B, T) captions or answers.
            labels: (B, T) the word to guess, -100 elsewhere.
            question_caps, question_cmasks: (B, T') questions, read whole before the answers.
            n_labels: n, as the data set counted it; None: it did not.
        """
        ids, mask, _ = layout.text_segment(caps, cmasks)
        labels = torch.cat([labels[:, :1], labels[:, 2:]], dim=1)
        if question_caps is not None:
            question, question_mask, _ = layout.text_segment(question_caps, question_cmasks)
            ids, visible = torch.cat([question, ids], dim=1), reading_order(mask, question_mask)
            labels = functional.pad(labels, (question.shape[1], 0), value=NO_LABEL)
        else:
            visible = reading_order(mask)
        hidden = self.multimodal_encoder(ids, visible, *self.condition(items, subset))
        return self.multimodal_encoder.logits(chosen(hidden, labels != NO_LABEL, n_labels))

    @torch.no_grad()
    def generate(
        self,
        items: Items,
        subset: str,
        prompt: Tensor,
        mask_id: int,
        eos_id: int,
        max_new: int,
        question_mask: Tensor | None = None,
        num_beams: int = 3,
        length_penalty: float = 0.6,
        uniforms: Tensor | None = None,
        top_k: int = 10,
        **options: Any,
    ) -> Tensor:
        """Texts about items.

        Args:
            items: of B items.
            subset: first letters of the modalities read.
            prompt: (B, n) ids: [CLS], or a question and the [CLS] of its answer.
            mask_id, eos_id: of [MASK] and of the [SEP] that ends a text.
            max_new: longest text behind the prompt.
            question_mask: (B, n - 1) readable positions of the question; None: there is none.
            num_beams: 1 takes the likeliest word at each step.
            length_penalty, options: of `beam_search`.
            uniforms, top_k: of `sample_search`, (B N, max_new): N drawn texts of each item, side by side,
                instead of a search.

        Returns:
            (B, <= max_new) ids behind the prompt; (B N, <= max_new) drawn ones.
        """
        answer = torch.ones_like(prompt[:, :1], dtype=torch.bool)
        visible = reading_order(answer, question_mask)
        condition, condition_mask = self.condition(items, subset)
        writer = Writer(self.multimodal_encoder, visible, condition, mask_id, condition_mask)
        end = {
            "max_length": prompt.shape[1] + max_new,
            "eos_id": eos_id,
            "pad_id": self.bert_config.pad_token_id,
        }
        if uniforms is not None:
            rows = prompt.repeat_interleave(len(uniforms) // len(prompt), dim=0)
            ids = sample_search(writer, rows, **end, uniforms=uniforms, top_k=top_k)
        elif num_beams == 1:
            ids = greedy_search(writer, prompt, **end)
        else:
            ids = beam_search(
                writer, prompt, num_beams=num_beams, length_penalty=length_penalty, **end, **options
            )
        return ids[:, prompt.shape[1] :]

    # --------------------------------------------------------------------------------------- released weights

    @property
    def required_weights(self) -> frozenset[str]:
        """What a checkpoint of a whole model must hold: all but heads that earlier releases lack or never
        trained.
        """
        optional = tuple(f"contra_head_{name}." for name in ("d", *JOINT))
        return frozenset(name for name in self.state_dict() if not name.startswith(optional))

    def released_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a checkpoint as this model names and sizes them.

        Older releases say `video_`, `evaclip_model` and `clip_model`. Position embeddings of another image
        size are resized (bilinear), embeddings of another number of frames or clips stretched.
        """
        own, result = self.state_dict(), {}
        for name, tensor in state.items():
            old = next((old for old in OLD_NAMES if name.startswith(old)), "")
            name = OLD_NAMES.get(old, "") + name.removeprefix(old)
            if name.endswith("visual.pos_embed") and name in own:
                grid = getattr(self.vision_encoder["visual"].config, "grid", None)
                tensor = tensor if grid is None else resize_grid(tensor, grid)
            elif name.endswith("_frame_embedding") and name in own:
                tensor = stretched(tensor, own[name].shape[1])
            result[name] = tensor
        return result

    # ------------------------------------------------------------------------------------------------- inside

    @property
    def _source(self) -> str:
        return self.config.source or "config"

    def _letters(self) -> dict[str, str]:
        """Letter -> name of a modality, in the order of a condition."""
        first = [name[0] for name in self.names]
        if not first or any(letter not in LETTERS for letter in first) or len(set(first)) < len(first):
            expected = "names that begin with v (video), a (audio), s (subtitle) or d (depth), one each"
            raise ValueError(
                f"{self._source}: dataset.modalities: expected {expected}, got {', '.join(self.names)}."
            )
        return {letter: self.names[first.index(letter)] for letter in LETTERS if letter in first}

    @staticmethod
    def _joint_of(letters: Iterable[str]) -> list[str]:
        """Of which modalities together there is an embedding."""
        return [*letters, *(joint for joint in JOINT if set(joint) <= set(letters))]

    def _sees(self) -> bool:
        return bool({"v", "d"} & set(self.letters))

    def _tower(self, letter: str) -> nn.Module | None:
        if letter == "a":
            return getattr(self, "audio_encoder", None)
        return self.vision_encoder["visual"] if hasattr(self, "vision_encoder") else None

    def _width(self, letter: str, entries: Mapping[str, Mapping[str, Any]]) -> int:
        if letter == "s":
            return self.bert_config.hidden_size
        tower = self._tower(letter)
        return entries[self.letters[letter]].get("width", 512) if tower is None else tower.width

    def _places(self, letter: str, entries: Mapping[str, Mapping[str, Any]]) -> int:
        """Frames or clips that have an embedding of their own."""
        return entries[self.letters[letter]].get("max_len") or required(
            self.config, "dataset.max_video_len", self
        )

    def _freeze(self, names: list[str]) -> list[nn.Module]:
        encoders = {"text": self.multimodal_encoder}
        encoders |= {
            TOWERS[letter]: self._tower(letter)
            for letter in self.letters
            if letter != "s" and self._tower(letter) is not None
        }
        unknown = [name for name in names if name not in encoders]
        if unknown:
            what = f"names {', '.join(unknown)}; there are encoders of {', '.join(encoders)}"
            raise ValueError(f"{self._source}: model.frozen {what}.")
        return [encoders[name].requires_grad_(False) for name in names]

    def _encode(self, letter: str, name: str, batch: Mapping[str, Tensor]) -> Stream:
        keys = (f"{name}_caps", f"{name}_cmasks") if letter == "s" else (f"{name}_feats", f"{name}_masks")
        lacking = [key for key in keys if key not in batch]
        if lacking:
            cure = "Set dataset.aligner: ModalityAligner."
            raise ValueError(f"{self._source}: the batch has no {', '.join(lacking)}. {cure}")
        read, mask = (batch[key] for key in keys)
        if letter == "s":
            hidden = self._read(read, mask)
            return Stream(hidden[:, None], torch.ones_like(mask[:, :1]), hidden[:, 0])
        tower = self._tower(letter)
        if tower is None:
            tokens, summary = read[:, :, None], "mean"
        else:
            places = read.flatten(0, 1)
            with torch.set_grad_enabled(torch.is_grad_enabled() and tower not in self._frozen):
                tokens, summary = tower(places).unflatten(0, read.shape[:2]), tower.summary
        each = tokens[:, :, 0] if summary == "first" else tokens.mean(2)  # (B, G, W)
        return Stream(tokens, mask, masked_mean(each, mask))

    def _read(self, caps: Tensor, cmasks: Tensor) -> Tensor:
        """Texts (B, T) -> hidden states (B, T - 1, H)."""
        ids, mask, _ = layout.text_segment(caps, cmasks)
        return self.multimodal_encoder(ids, mask)

    def _match_logits(
        self, caps: Tensor, cmasks: Tensor, condition: Tensor, condition_mask: Tensor
    ) -> Tensor:
        """Logits (n, 2) of n pairs of a text and a condition."""
        n = columns_in_use(cmasks)
        ids, mask, _ = layout.text_segment(caps[:, :n], cmasks[:, :n])
        return self.itm_head(self.multimodal_encoder(ids, mask, condition, condition_mask)[:, 0])

    @staticmethod
    def _unit(x: Tensor) -> Tensor:
        return functional.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


class ContrastiveHead(nn.Module):
    """A projection without bias."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.linear = nn.Linear(width, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def reading_order(mask: Tensor, question_mask: Tensor | None = None) -> Tensor:
    """Which position reads which while texts are written: the question reads itself; the text reads the
    question and what comes before.

    Args:
        mask: (B, S) positions of the text that are there.
        question_mask: (B, Q) those of the question; None: there is none.

    Returns:
        (B, Q + S, Q + S) bool.
    """
    n = 0 if question_mask is None else question_mask.shape[1]
    there = mask if question_mask is None else torch.cat([question_mask, mask], dim=1)
    length = there.shape[1]
    order = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    order[:, :n] = True
    return order & there[:, None].bool()


def _conditions(batch: Mapping[str, Any]) -> list[str]:
    """Letters of the conditions that have captions of their own."""
    return [name.removeprefix("caps_") for name in batch if name.startswith("caps_")]


def stretched(table: Tensor, n: int) -> Tensor:
    """Embeddings of places (1, old, H) for n places, each the nearest below: (1, n, H)."""
    old = table.shape[1]
    return table if n == old else table[:, torch.arange(n, device=table.device) * old // n]


def _to_hidden(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden, eps=NORM_EPS))


def _small_normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(INITIAL_STD * torch.randn(*shape))
