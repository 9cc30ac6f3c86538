"""The synthetic world: small instructional "videos" with noisy narration and known truth, written in the
formats of the real data sets.

settings.py    every knob, with its meaning: noise, sizes, seed
parts.py       verbs, ingredients and tools, what they are called and what they look like
timeline.py    which step is shown in which seconds
narration.py   what is said, and when
features.py    what is seen: one vector per second
sound.py       what is heard: one vector per second
world.py       tasks, held-out combinations, splits, look-alike test videos
vocabulary.py  WordPiece vocabulary and the small BERT folder
write.py, write_test_sets.py, write_downstream.py, write_modalities.py  the files;  build.py  all of them, as
    a whole or not at all
truth.py       reads truth.json: which caption belongs to which seconds
baseline.py    the trivial rows of a results table: chance and ridge regression
"""
