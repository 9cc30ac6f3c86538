"""Learning rates and decay of parts of a model."""

from __future__ import annotations

import pytest
from torch import nn

from mmpt.models.gram import GRAM
from mmpt.models.groups import set_groups
from tests.conftest import GOLDEN, golden_cases, load_golden
from tests.golden_modules import arrays_below, tiny_config


@pytest.mark.parametrize("case", golden_cases("release_optim*.npz"))
def test_golden_release_optim_groups(case, tmp_path):
    golden = load_golden(case)
    state = arrays_below(load_golden(GOLDEN / "release_gram_e2e_2.npz"), "state")
    model = GRAM(tiny_config(tmp_path, state, "vasd"))
    released = {"visual": 5e-7, "itm_head": 1e-4, "contra_head_d": 1e-4}
    set_groups(model, released, ["bias", "LayerNorm.bias", "LayerNorm.weight"])
    known = dict(model.named_parameters())
    seen = set()
    for i in range(len(golden["group_order"])):
        rate, decay = golden[f"group{i}.lr_weight_decay"]
        for name in set(golden[f"group{i}.names"].tolist()) & known.keys():
            own = getattr(known[name], "optim_overrides", {"optimizer": {}})["optimizer"]
            assert (own.get("lr", 2e-5), own.get("weight_decay", 0.01)) == (rate, decay), name
            seen.add(name)
    assert len(seen) > 150


def test_the_first_part_that_a_name_contains_counts():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
    set_groups(model, {"head.weight": 1.0, "head": 2.0}, [])
    assert model["head"].weight.optim_overrides == {"optimizer": {"lr": 1.0}}
    assert model["head"].bias.optim_overrides == {"optimizer": {"lr": 2.0}}
    assert not hasattr(model["body"].weight, "optim_overrides")


def test_a_part_that_no_name_contains_is_refused():
    with pytest.raises(ValueError, match="no parameter of Linear has visual"):
        set_groups(nn.Linear(2, 2), {"visual": 1.0}, [])


def test_parts_have_weight_decays_and_none_where_no_decay_names_them():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "base": nn.Linear(2, 2)})
    set_groups(model, {}, ["bias"], {"base.": 0.5})
    own = {name: getattr(p, "optim_overrides", None) for name, p in model.named_parameters()}
    assert own["base.weight"] == {"optimizer": {"weight_decay": 0.5}} and own["head.weight"] is None
    assert own["base.bias"] == own["head.bias"] == {"optimizer": {"weight_decay": 0.0}}
