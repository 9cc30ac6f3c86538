"""Models by name: where weights are published, where they lie here, and how they are fetched."""

from mmpt.zoo.entries import Entry, add, entry_of, find, known, remedy
