"""The page of keys."""

from mmpt import registry
from scripts.docs.keys import page


def test_classes_of_the_same_keys_share_a_table_and_every_class_with_keys_is_there():
    text = page()
    assert text.count("| `sinkhorn_iterations` |") == 2  # MMContraLoss and SequenceContrastLoss
    assert "- **T2VContraLoss**: " in text and "### T2VContraLoss, V2TContraLoss\n" in text
    named = [e.name for e in registry.MODELS.entries().values() if e.config and e.name.startswith("MMFusion")]
    assert named and not [name for name in named if name not in text]
