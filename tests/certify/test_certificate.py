"""A certificate holds for the losses that there are, and not for mistakes that public libraries have made."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mmpt.certify import certify, foreign_subjects, pairs_subject, subject_of, subjects, table
from mmpt.certify.certificate import outcome
from mmpt.ops.distributed import all_gather, rank, world_size
from mmpt_cli.main import main
from tests.conftest import ROOT


def local(x):
    return x


def contrast(video, text, scale=10.0, gather=all_gather, factor=1.0):
    """InfoNCE over the vectors of all processes, each of its own rows."""
    video, text = normalize(video, dim=-1), normalize(text, dim=-1)
    rows = torch.arange(len(video)) + (0 if gather is local else rank() * len(video))
    scores = scale * video @ gather(text).T, scale * text @ gather(video).T
    return factor * sum(cross_entropy(score, rows) for score in scores) / 2


def without_backward(x):
    return x if world_size() == 1 else all_gather(x, with_grad=False)


def stale_scale():
    """Keeps the scale of the first batch that it sees."""
    kept = []

    def loss(video, text):
        kept.append(10.0 / float(video.detach().norm(dim=-1).mean()))
        return contrast(video, text, kept[0])

    return loss


def summed_cross_entropy(logits, targets):
    return cross_entropy(logits, targets, reduction="sum")


BUGS = {
    "gathered vectors are constants": (
        lambda: lambda v, t: contrast(v, t, gather=without_backward),
        "processes",
    ),
    "divided by the processes twice": (
        lambda: lambda v, t: contrast(v, t, factor=1 / world_size()),
        "processes",
    ),
    "scaled but not gathered": (
        lambda: lambda v, t: contrast(v, t, gather=local, factor=world_size()),
        "processes",
    ),
    "the scale of an earlier batch": (stale_scale, "after another batch"),
}


@pytest.fixture(scope="module")
def findings():
    """Of all losses and all mistakes, on two processes."""
    wrong = [pairs_subject(name, make, joins=True) for name, (make, _) in BUGS.items()]
    right = pairs_subject("right", lambda: contrast, joins=True)
    return certify([*subjects(), right, *wrong], ranks=[2])


def test_every_loss_is_what_it_is_however_its_batch_is_computed(findings):
    assert {finding.loss for finding in findings} >= {"MMContraLoss", "GDTLoss", "GRAMLoss", "right"}
    failed = {(f.loss, f.question) for f in findings if f.loss not in BUGS and not f.holds}
    assert not failed
    asked = [f for f in findings if f.question == "2 processes" and f.value is not None]
    assert len(asked) >= 10


def test_no_loss_is_compared_at_zero():
    for subject in subjects():
        value, gradients = outcome(subject, subject.make_batch(torch.float64))
        assert value and any(gradient.any() for gradient in gradients), subject.name


@pytest.mark.parametrize("bug", BUGS)
def test_a_known_mistake_is_found(bug, findings):
    failed = {f.question for f in findings if f.loss == bug and not f.holds}
    assert any(BUGS[bug][1] in question for question in failed)


def test_float32_has_its_bound_where_items_are_close(findings):
    apart = [max(f.value, f.gradient) for f in findings if f.question == "float32, close items"]
    assert max(apart) < 1e-4


def test_the_page_has_a_row_for_every_loss(findings):
    page = (ROOT / "docs/certificates.md").read_text().partition("results:begin")[2]
    assert set(re.findall(r"^\| (\w+) \|", page, re.MULTILINE)) - {"loss"} == {s.name for s in subjects()}
    assert table(findings).splitlines()[0].replace("2 processes |", "2 processes | 4 processes |") in page


def test_the_command_prints_a_table_and_names_what_fails(capsys):
    assert main(["certify", "T2VContraLoss", "--ranks"]) == 0
    assert "| T2VContraLoss | 0 |" in capsys.readouterr().out


def test_keys_of_a_loss_can_be_given():
    subject = subject_of("MMContraLoss", beta=0.0)
    assert subject.make_loss().config.beta == 0


def test_gradients_of_micro_batches_add_up(findings):
    asked = {f.loss for f in findings if f.question == "4 micro-batches" and f.value is not None}
    assert {"CrossEntropy", "BCE", "MMContraLoss", "GRAMLoss"} <= asked


def test_a_loss_that_adds_up_over_items_instead_of_a_mean_is_found():
    summed = replace(subject_of("CrossEntropy"), make_loss=lambda: summed_cross_entropy)
    failed = {f.question for f in certify([summed], ranks=[]) if not f.holds}
    assert "4 micro-batches" in failed


def test_a_compiled_loss_is_compared():
    findings = {f.question: f for f in certify([subject_of("MSE")], [], "aot_eager")}
    finding = findings["compiled (aot_eager)"]
    assert finding.holds
    assert finding.value is not None


def test_a_loss_of_a_library_without_adapter_is_refused_with_those_that_have_one():
    with pytest.raises(KeyError, match="no adapter for 'open_clip.NoLoss'; there are open_clip.ClipLoss, "):
        foreign_subjects("open_clip.NoLoss")
