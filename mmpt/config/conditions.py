"""Conditions of texts: the first letters of the modalities that a text is compared with or written from."""

from __future__ import annotations

LETTERS = "vasd"  # video, audio, subtitle, depth, in the order of a condition


def letters_of(condition: str) -> str:
    """The modalities of a condition in their order, without the text: tva -> va.

    Raises:
        ValueError: other letters, or no modality.
    """
    strange = [letter for letter in condition if letter not in "t" + LETTERS]
    letters = "".join(letter for letter in LETTERS if letter in condition)
    if strange or not letters:
        raise ValueError(
            f"condition {condition!r}: expected t and first letters of video, audio, subtitle and depth, "
            "such as tva."
        )
    return letters
