"""Timed captions: reading, checking, removing repetitions."""
