"""What is said in a video: sentences as speech recognition would hear a cook talking, and clean captions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mmpt.synthetic.parts import OBJECTS, TOOLS, VERBS, Step
from mmpt.synthetic.settings import Noise
from mmpt.synthetic.timeline import Segment, Video

WORDS_PER_S = 2.5
MIN_DURATION_S = 1.5

# V verb, O ingredient, Z tool, P second ingredient
WITH_TOOL = (
    "V the O with the Z",
    "now take the Z and V the O",
    "you want to V the O using a Z",
    "go ahead and V your O with a Z",
    "grab the Z and V some O",
    "so i V the O here with my Z",
    "next we V the O with our Z",
    "with the Z just V the O",
    "use the Z to V the O",
    "then V all of the O with this Z",
    "i am going to V the O using the Z",
    "get a Z ready and V the O",
)
WITHOUT_TOOL = (
    "V the O",
    "now V the O",
    "you want to V the O",
    "go ahead and V your O",
    "next we V the O",
    "so i V the O here",
    "then V all of the O",
    "i am going to V the O",
    "it is time to V the O",
    "let us V some O",
)
# Either ingredient may be named first: only the words between them tell the roles.
WITH_PARTNER = (
    "V the O with some P",
    "add the P to the O and V it",
    "V the O together with the P",
    "with some P you V the O",
    "take the P over to the O and V it",
    "now V your O and use P for it",
    "put P on the O then V it",
    "to the O goes the P and we V it",
)
FOLLOW_UPS = (
    "keep going like that",
    "that is the O done",
    "just like this",
    "that looks about right",
    "make sure you get all of the O",
    "the O is coming along nicely",
    "do not rush this",
    "look at that O",
)
CHATTER = (
    "hi everybody welcome back to my kitchen",
    "please subscribe to the channel",
    "this is my favorite recipe of all time",
    "i learned this from my grandmother",
    "leave me a comment down below",
    "it smells so good in here",
    "we are almost there",
    "my kids really love this one",
    "thanks so much for watching",
    "it is really easy to do at home",
    "all right so moving on",
    "i hope you are having a great day",
    "this only takes a few minutes",
    "you can find the recipe on my website",
    "that is going to be delicious",
    "let me know what you think",
)
MISLEADING = (
    "you could also use O if you like",
    "last time i did this with a Z",
    "some people V the O first",
    "do not V it yet",
    "later on we need the O and the P",
    "i did not have any O today",
    "my mother would V the O",
    "if you have no Z that is fine",
)
FILLERS = ("um", "uh", "like", "you know", "so", "okay")
TEMPLATES = WITH_TOOL + WITHOUT_TOOL + WITH_PARTNER + FOLLOW_UPS + CHATTER + MISLEADING
SLOT = re.compile(r"\b[VOZP]\b")


@dataclass(frozen=True)
class Sentence:
    """One recognised sentence.

    Attributes:
        step: index of the segment it tells, -1 for chatter.
    """

    text: str
    start_s: float
    end_s: float
    step: int


def narrate(video: Video, noise: Noise, rng: np.random.Generator) -> list[Sentence]:
    """Everything said in a video, by start time; at least one sentence."""
    sentences = []
    shift = rng.normal(0.0, noise.offset_s / 2)
    for index, segment in enumerate(video.segments):
        if rng.random() >= noise.p_silent:
            sentences += _tell(index, segment, shift, video.length_s, noise, rng)
    told = max(len(sentences), 1)  # an all silent video still gets a word, so that none is without captions
    n_chatter = int(rng.binomial(round(told / (1 - noise.p_chatter)), noise.p_chatter))
    for _ in range(max(n_chatter, 1 - len(sentences))):
        start = float(rng.uniform(0, video.length_s - MIN_DURATION_S))
        sentences.append(_say(_chatter(noise, rng), start, -1, video.length_s, noise, rng))
    return sorted(sentences, key=lambda sentence: sentence.start_s)


def caption(step: Step, rng: np.random.Generator) -> str:
    """A clean sentence that names all three parts."""
    return _fill(_pick(WITH_PARTNER if step.partner else WITH_TOOL, rng), step, rng)


def word_list() -> list[str]:
    """Every word that can be said, sorted."""
    names = [name for part in VERBS + OBJECTS + TOOLS for name in part]
    return sorted(
        {word for text in (*names, *TEMPLATES, *FILLERS) for word in text.split() if not SLOT.fullmatch(word)}
    )


WORDS = word_list()


def _tell(
    index: int, segment: Segment, shift: float, length_s: int, noise: Noise, rng: np.random.Generator
) -> list[Sentence]:
    """The sentence on one step and perhaps a weak one after it."""
    step = segment.step
    named = step.partner or rng.random() < noise.p_tool_named
    text = caption(step, rng) if named else _fill(_pick(WITHOUT_TOOL, rng), step, rng)
    start = (
        segment.start_s
        + rng.uniform(0, 0.4 * (segment.end_s - segment.start_s))
        + shift
        + rng.normal(0.0, noise.offset_s)
    )
    sentences = [_say(text, start, index, length_s, noise, rng)]
    if rng.random() < noise.p_follow:
        start = sentences[0].end_s + rng.uniform(1, 4)
        sentences.append(_say(_fill(_pick(FOLLOW_UPS, rng), step, rng), start, index, length_s, noise, rng))
    return sentences


def _chatter(noise: Noise, rng: np.random.Generator) -> str:
    if rng.random() >= noise.p_misleading:
        return _pick(CHATTER, rng)
    anything = Step(
        int(rng.integers(len(VERBS))),
        int(rng.integers(len(OBJECTS))),
        int(rng.integers(len(TOOLS))),
        partner=False,
    )
    return _fill(_pick(MISLEADING, rng), anything, rng)


def _say(
    text: str, start_s: float, step: int, length_s: int, noise: Noise, rng: np.random.Generator
) -> Sentence:
    """A sentence as it is heard, its times inside the video."""
    heard = _hear(text.split(), noise, rng)
    start = float(np.clip(start_s, 0, length_s - MIN_DURATION_S))
    end = min(start + max(MIN_DURATION_S, len(heard) / WORDS_PER_S), float(length_s))
    return Sentence(" ".join(heard), round(start, 2), round(end, 2), step)


def _hear(words: list[str], noise: Noise, rng: np.random.Generator) -> list[str]:
    """Words with a false start, fillers, and words lost or misheard."""
    if rng.random() < noise.p_false_start:
        words = words[: int(rng.integers(1, 4))] + words
    heard = []
    for word in words:
        if rng.random() < noise.p_filler:
            heard += _pick(FILLERS, rng).split()
        if rng.random() >= noise.p_word:
            heard.append(word)
        elif rng.random() < 0.5:
            heard.append(_pick(WORDS, rng))
    return heard or words[:1]


def _fill(template: str, step: Step, rng: np.random.Generator) -> str:
    """The template with one of the names of each part; P is the second ingredient, or any one where the step
    has none."""
    partner = step.third if step.partner else int(rng.integers(len(OBJECTS)))
    tool = 0 if step.partner else step.third
    parts = {"V": VERBS[step.verb], "O": OBJECTS[step.obj], "Z": TOOLS[tool], "P": OBJECTS[partner]}
    return SLOT.sub(lambda slot: _pick(parts[slot.group()], rng), template)


def _pick(options: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
