from dataclasses import dataclass

import pytest
import torch

from mmpt.losses import GDTLoss, GRAMLoss, LossConfig, MMContraLoss, SumLoss, TempCLRLoss, build_loss, option
from mmpt.losses.loss import Loss
from mmpt.losses.sequence import SequenceConfig
from mmpt.registry import LOSSES, UnknownName


@dataclass(frozen=True, kw_only=True)
class Inner(LossConfig):
    length: int = option(8, "clips", yaml="threshold")


@dataclass(frozen=True, kw_only=True)
class Outer(LossConfig):
    epsilon: float = option(0.1, "regulariser", yaml="scale")
    steps: int | None = option(None, "steps")
    exact: bool = option(False, "switch")
    inner: Inner | None = option(None, "a section")


class Scaled(Loss):
    Config = Outer

    def forward(self, *, pooled_video, pooled_text, logit_scale=None, **batch):
        value = (pooled_video @ pooled_text.T).mean()
        self.record(product=value)
        return value


def test_section_is_read_in_yaml_spelling_and_stored_in_the_terms_of_the_field():
    config = Scaled({"loss_cls": "Scaled", "scale": 2, "inner": {"threshold": 4}}).config
    assert config == Outer(epsilon=2.0, inner=Inner(length=4))


def test_a_ready_config_and_none_are_accepted():
    assert Scaled(Outer(steps=3)).config.steps == 3
    assert Scaled().config == Outer()


def test_plain_keywords_are_keys_by_field_name_or_by_yaml_spelling():
    assert Scaled(epsilon=2, inner={"threshold": 4}).config == Outer(epsilon=2.0, inner=Inner(length=4))
    assert Scaled(scale=2).config == Scaled({"scale": 2}).config
    assert Scaled({"scale": 2}, steps=3).config == Scaled(Outer(epsilon=2.0), steps=3).config


def test_an_unknown_keyword_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"loss \(Scaled\)\.step: unknown key\. Did you mean .*\.steps\?"):
        Scaled(step=3)


def test_the_config_of_another_loss_is_refused():
    with pytest.raises(TypeError, match="Scaled is configured by Outer"):
        Scaled(Inner())


@pytest.mark.parametrize(("make", "field", "value"), [
    (lambda: GDTLoss(hypothesis=8), "hypothesis", 8),
    (lambda: MMContraLoss(beta=0.3, sinkhorn_iterations=5), "n_iters", 5),
    (lambda: MMContraLoss(sequence_contrast={"threshold": 4}).config.sequence_contrast, "sequence_length", 4),
    (lambda: GRAMLoss(dam_weight=0.1), "dam_weight", 0.1),
    (lambda: TempCLRLoss(temperature=0.2), "temperature", 0.2),
    (lambda: SumLoss(losses=[{"loss_cls": "NCE"}]), "losses", [{"loss_cls": "NCE"}]),
])  # fmt: skip
def test_the_losses_take_plain_keywords(make, field, value):
    made = make()
    assert getattr(getattr(made, "config", made), field) == value


class Usual(Loss):
    """What people write who never saw `Config`."""

    def __init__(self, scale: float, bias=0.5, names: "list | None" = None):
        super().__init__()
        self.scale, self.bias = scale, bias

    def forward(self, *, depth_map, targets, **batch):
        return self.scale * depth_map.mean() + self.bias


LOSSES.register("UsualForTests")(Usual)


def test_arguments_of_a_plugins_init_are_its_keys():
    loss = build_loss({"loss_cls": "UsualForTests", "scale": 2, "names": ["a"]})
    assert loss(depth_map=torch.ones(2), targets=torch.ones(2)) == 2.5
    assert (loss.config.scale, loss.config.names) == (2.0, ["a"])
    assert Usual(3.0).scale == 3.0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "scale missing, which has no default"),
        ({"scale": "much"}, r"\.scale: expected a number, got 'much'"),
        ({"scale": 1, "bais": 1}, r"\.bais: unknown key\. Did you mean .*\.bias\?"),
    ],
)
def test_a_section_that_does_not_fit_the_arguments_of_init_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        build_loss({"loss_cls": "UsualForTests", **keys})


def test_an_init_that_hides_keys_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match=r"Hiding\.__init__ hides the keys of Outer\. Write `def __init__"):

        class Hiding(Scaled):
            def __init__(self, scale):
                super().__init__()


class Model(torch.nn.Module):
    def __init__(self, *returns):
        super().__init__()
        self.returns = frozenset(returns)


def test_what_a_plugin_declares_of_the_model_is_asked_of_it():
    class Declared(Usual):
        from_model = ("depth_map",)

    Declared(1.0).check_model(Model("depth_map"))
    with pytest.raises(ValueError, match="reads depth_map, which model.model_cls Model does not return"):
        Declared(1.0).check_model(Model("pooled_video"))


def test_without_a_declaration_everything_is_asked_of_the_model_and_the_error_names_the_cure():
    with pytest.raises(ValueError, match=r"reads depth_map, targets, .* left out of Usual\.from_model"):
        Usual(1.0).check_model(Model())


@pytest.mark.parametrize(
    "name", ["MMContraLoss", "T2VContraLoss", "V2TContraLoss", "MILNCELoss", "TempCLRLoss"]
)
def test_a_learned_temperature_that_nothing_reads_is_refused_and_the_key_that_reads_it_named(name):
    model = Model("pooled_video", "pooled_text", "logit_scale")
    with pytest.raises(ValueError, match=r"logit_scale that \w+ does not read. Set loss.temperature: 0.07"):
        build_loss({"loss_cls": name}).check_temperature(model)
    build_loss({"loss_cls": name, "temperature": 0.07}).check_temperature(model)
    build_loss({"loss_cls": name}).check_temperature(Model("pooled_video", "pooled_text"))


def test_a_learned_temperature_needs_one_reader_among_the_parts_of_a_sum():
    model, parts = Model("logits", "logit_scale"), [{"loss_cls": "CrossEntropy"}, {"loss_cls": "PairwiseNCE"}]
    SumLoss(losses=parts).check_temperature(model)
    with pytest.raises(ValueError, match="Set model.learnable_temperature: false"):
        SumLoss(losses=parts[:1]).check_temperature(model)


def test_numbers_that_yaml_reads_as_strings_are_numbers():
    assert Scaled({"scale": "1e-3"}).config.epsilon == 1e-3


def test_all_faults_of_a_section_come_in_one_error_with_place_and_nearest_key():
    with pytest.raises(ValueError, match="unknown key") as error:
        Scaled({"scal": 1, "steps": "many", "exact": 1, "inner": {"treshold": 4}})
    message = str(error.value)
    assert "loss (Scaled).scal: unknown key. Did you mean loss (Scaled).scale?" in message
    assert "loss (Scaled).steps: expected a whole number, got 'many'." in message
    assert "loss (Scaled).exact: expected true or false, got 1." in message
    assert "loss (Scaled).inner.treshold: unknown key. Did you mean loss (Scaled).inner.threshold?" in message


def test_reads_names_the_arguments_without_default():
    assert Scaled().reads == ("pooled_video", "pooled_text")


def test_a_batch_without_a_tensor_that_the_loss_reads_is_refused_by_name():
    with pytest.raises(TypeError, match=r"Scaled reads pooled_text.*given: pooled_video"):
        Scaled()(pooled_video=torch.ones(2, 2), pooled_text=None)


def test_terms_are_detached_values_of_the_last_call():
    loss = Scaled()
    loss(pooled_video=torch.ones(2, 3, requires_grad=True), pooled_text=torch.ones(2, 3), caps=None)
    assert loss.terms["product"].item() == 3 and not loss.terms["product"].requires_grad


def test_a_term_that_is_not_finite_stops_with_its_name():
    with pytest.raises(FloatingPointError, match="Scaled: product = nan"):
        Scaled()(pooled_video=torch.full((1, 1), torch.nan), pooled_text=torch.ones(1, 1))


def test_autocast_does_not_reach_the_maths():
    x = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = Scaled()(pooled_video=x, pooled_text=x)
    assert torch.equal(value, Scaled()(pooled_video=x, pooled_text=x))


def test_a_section_names_its_class():
    assert type(build_loss({"loss_cls": "MMContraLoss"})).__name__ == "MMContraLoss"
    with pytest.raises(ValueError, match="loss.loss_cls is missing"):
        build_loss({"scale": 1})
    with pytest.raises(UnknownName, match="Did you mean MMContraLoss"):
        build_loss({"loss_cls": "MMContrLoss"})


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_registered_loss_documents_itself_and_its_keys(name):
    cls = LOSSES.get(name)
    assert cls.__doc__ and all(field.metadata["help"] for field in cls.Config.yaml_names().values())


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("MMContraLoss", "beta", 1.5, "a finite number and at least 0 and at most 1"),
        ("MMContraLoss", "alpha_lse", float("nan"), "a finite number and at least 0"),
        ("SequenceContrastLoss", "scale", 0, "a finite number and above 0"),
        ("GDTLoss", "temperature", -1, "a finite number and above 0"),
        ("GDTLoss", "num_negatives", 0, "a finite number and at least 1"),
        ("GDTLoss", "layout", "rows", "one of view_major, item_major"),
        ("STiCALoss", "temp", 0, "a finite number and above 0"),
        ("STiCALoss", "cross_modal_alpha", 2, "a finite number and at least 0 and at most 1"),
        ("GRAMLoss", "temperature", float("inf"), "a finite number and above 0"),
        ("GRAMLoss", "label_smoothing", 2, "a finite number and at least 0 and at most 1"),
        ("PMRLLoss", "rank_temperature", 0, "a finite number and above 0"),
        ("FewShotAlignmentLoss", "way", 0, "a finite number and at least 1"),
    ],
)
def test_values_out_of_range_are_refused_with_place_expectation_and_value(name, key, value, words):
    with pytest.raises(ValueError, match=rf"^loss \({name}\)\.{key}: expected {words}, got '?{value}"):
        build_loss({"loss_cls": name, key: value})


def test_ready_configs_are_checked_too():
    with pytest.raises(ValueError, match=r"loss\.threshold: expected .* at least 1, got 0"):
        SequenceConfig(sequence_length=0)


def test_a_section_that_is_none_is_refused():
    with pytest.raises(ValueError, match="loss: expected a section with loss_cls, got 'NCE'"):
        build_loss("NCE")
    with pytest.raises(UnknownName):
        build_loss({"loss_cls": ["NCE"]})


def test_a_loss_has_no_parameters():
    assert not list(build_loss({"loss_cls": "MMContraLoss", "sequence_contrast": {}}).parameters())


class Odd(Loss):
    """Returns what it is told to."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer

    def forward(self, *, pooled_text, **batch):
        return self.answer


@pytest.mark.parametrize("answer, found", [(None, "NoneType"), (torch.ones(2), r"shape \(2,\)")])
def test_what_is_no_scalar_is_refused_by_the_name_of_the_loss(answer, found):
    with pytest.raises(TypeError, match=f"Odd.forward returned {found}; expected a scalar tensor"):
        Odd(answer)(pooled_text=torch.ones(2, 3))


def test_parameters_of_a_loss_are_refused_as_nobody_trains_them():
    loss = Odd()
    loss.bias = torch.nn.Parameter(torch.zeros(()))
    with pytest.raises(ValueError, match=r"Odd has parameters \(bias\), which are neither trained nor saved"):
        loss.check_model(torch.nn.Identity())
