"""Verbs, ingredients and tools: what they are called, what they look like, and steps made of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

DIM = 512  # of a feature, as S3D's

# Each line is one part; its names mean the same to the viewer, and a speaker picks one at random.
VERBS = (
    ("chop", "cut up", "dice"),
    ("slice", "cut into slices"),
    ("peel", "skin"),
    ("grate", "shred"),
    ("mash", "crush"),
    ("stir", "mix"),
    ("whisk", "beat"),
    ("fry", "pan fry"),
    ("boil", "cook in water"),
    ("bake", "put in the oven"),
    ("roast",),
    ("grill", "barbecue"),
    ("steam",),
    ("simmer", "cook gently"),
    ("drain", "strain"),
    ("rinse", "wash"),
    ("season", "spice up"),
    ("marinate",),
    ("knead", "work"),
    ("roll", "roll out"),
    ("spread", "smear"),
    ("pour", "tip in"),
    ("sprinkle", "scatter"),
    ("fold", "fold in"),
    ("blend", "puree"),
    ("melt",),
    ("toast", "brown"),
    ("chill", "cool down"),
    ("wrap", "roll up"),
    ("stuff", "fill"),
)
OBJECTS = (
    ("onion", "onions"),
    ("garlic", "garlic cloves"),
    ("tomato", "tomatoes"),
    ("potato", "potatoes"),
    ("carrot", "carrots"),
    ("pepper", "bell pepper"),
    ("mushroom", "mushrooms"),
    ("spinach",),
    ("cabbage",),
    ("celery",),
    ("chicken", "chicken breast"),
    ("beef", "ground beef"),
    ("pork",),
    ("bacon",),
    ("fish", "salmon"),
    ("shrimp", "prawns"),
    ("tofu",),
    ("egg", "eggs"),
    ("cheese", "cheddar"),
    ("butter",),
    ("milk",),
    ("cream", "heavy cream"),
    ("yogurt",),
    ("flour",),
    ("sugar", "brown sugar"),
    ("rice",),
    ("pasta", "noodles"),
    ("bread", "bread slices"),
    ("dough", "pizza dough"),
    ("beans", "kidney beans"),
    ("lentils",),
    ("corn", "sweet corn"),
    ("lemon", "lemon juice"),
    ("apple", "apples"),
    ("banana", "bananas"),
    ("ginger",),
    ("parsley", "fresh parsley"),
    ("basil",),
    ("chocolate",),
    ("almonds", "nuts"),
)
TOOLS = (
    ("knife", "sharp knife"),
    ("spoon", "wooden spoon"),
    ("fork",),
    ("spatula",),
    ("tongs",),
    ("ladle",),
    ("pan", "skillet"),
    ("pot", "saucepan"),
    ("bowl", "mixing bowl"),
    ("tray", "sheet"),
    ("board", "cutting board"),
    ("blender", "food processor"),
    ("peeler",),
    ("sieve", "colander"),
    ("brush",),
    ("foil",),
)
N_SCENERY = 12


@dataclass(frozen=True, order=True)
class Step:
    """One action: a verb, an ingredient and a third part, all as indices.

    Attributes:
        verb, obj: into VERBS and OBJECTS.
        third: into TOOLS, or into OBJECTS where `partner` says that a second ingredient takes the tool's
            place.
    """

    verb: int
    obj: int
    third: int
    partner: bool

    def swapped(self) -> Step:
        """The two ingredients in each other's roles; a step with a tool stays as it is."""
        return replace(self, obj=self.third, third=self.obj) if self.partner else self

    def label(self) -> str:
        """Short standard name, e.g. "chop onion with knife"."""
        third = OBJECTS[self.third] if self.partner else TOOLS[self.third]
        return f"{VERBS[self.verb][0]} {OBJECTS[self.obj][0]} with {third[0]}"


class Looks:
    """The unit vectors that parts look like, drawn once per world.

    A second ingredient looks like the same ingredient under a fixed orthogonal map, so that "milk with rice"
    and "rice with milk", which use the same words, are different sights.
    """

    def __init__(self, seed: int):
        rng = stream(seed, "looks")
        self.verbs = unit_rows(rng, len(VERBS))
        self.objects = unit_rows(rng, len(OBJECTS))
        self.tools = unit_rows(rng, len(TOOLS))
        self.scenery = unit_rows(rng, N_SCENERY)
        self.pairs = unit_rows(rng, len(VERBS) * len(OBJECTS)).reshape(len(VERBS), len(OBJECTS), DIM)
        self.partners = np.roll(self.objects, 1, axis=1)

    def third(self, step: Step) -> np.ndarray:
        """What the tool or second ingredient looks like, (DIM,)."""
        return (self.partners if step.partner else self.tools)[step.third]


def stream(seed: int, *key: str | int) -> np.random.Generator:
    """The random stream of one thing, e.g. `stream(0, "train", 17, "narration")`.

    Every video has its own, one per theme: nothing depends on process or order, and a knob of the narration
    leaves the sights alone.
    """
    numbers = (zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key)
    return np.random.default_rng([seed, *numbers])


def unit_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """n random directions, (n, DIM) float32."""
    rows = rng.standard_normal((n, DIM), dtype=np.float32)
    return normalise(rows)


def normalise(rows: np.ndarray) -> np.ndarray:
    """Rows of (..., DIM) at length 1. (Not a BLAS call: those may sum in another order in another
    process.)"""
    return rows / np.sqrt(np.square(rows).sum(axis=-1, keepdims=True))
