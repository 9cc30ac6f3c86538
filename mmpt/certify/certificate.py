"""A loss must not depend on how its batch is computed: on ranks, order, padding, tiles, back ends, precision.

`certify` evaluates a loss and its gradients in ways that have to agree, and says by how much they do not.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from mmpt.certify.subjects import ITEMS, VIDEOS, Batch, Loss, Subject, cast, filled, floats
from mmpt.ops.gram import volume
from mmpt.ops.late_interaction import functions as late_interaction

RANKS = (2, 4)
PARTS = 4  # micro-batches of a batch
BOUNDS = {torch.float64: (1e-12, 1e-12), torch.float32: (1e-6, 5e-6)}  # of value and gradient
CLOSE = 0.03  # how far from a common direction items lie that are close
TINY = 1e-300
Outcome = tuple[Tensor, list[Tensor]]


@dataclass(frozen=True)
class Finding:
    """One question asked of one loss.

    Attributes:
        loss: its name.
        question: what was changed.
        value: relative difference of the loss; None: the question does not apply.
        gradient: largest difference of a gradient, relative to the largest gradient.
        bounds: of both.
        note: why it does not apply, or what went wrong.
    """

    loss: str
    question: str
    value: float | None = None
    gradient: float | None = None
    bounds: tuple[float, float] = BOUNDS[torch.float64]
    note: str = ""

    @property
    def holds(self) -> bool:
        """Within the bound, or not asked."""
        if self.value is None or self.gradient is None:
            return not self.note.startswith("fails")
        return self.value <= self.bounds[0] and self.gradient <= self.bounds[1]


def certify(
    subjects: Sequence[Subject], ranks: Sequence[int] = RANKS, compiler: str | None = None
) -> list[Finding]:
    """Asks every question of every loss.

    Args:
        subjects: the losses.
        ranks: numbers of processes that share the batch.
        compiler: backend of `torch.compile` to ask about ("inductor" needs a C++ compiler, "aot_eager" none);
            None: not asked, as it takes seconds a loss.

    Returns:
        findings, losses in their order.
    """
    found = {subject.name: list(_alone(subject)) for subject in subjects}
    if compiler:
        for subject in subjects:
            found[subject.name].append(_compiled(subject, compiler))
    for world in ranks:
        for finding in _on_ranks(subjects, world):
            found[finding.loss].append(finding)
    return [finding for findings in found.values() for finding in findings]


def outcome(subject: Subject, batch: Batch, loss: Loss | None = None) -> Outcome:
    """Value and gradients of a new loss, or of one that has been used."""
    leaves = [x.detach().clone().requires_grad_() for x in floats(batch)]
    value = (subject.make_loss() if loss is None else loss)(**filled(batch, leaves))
    value.backward()
    return value.detach(), _gradients(leaves)


def _gradients(leaves: Sequence[Tensor]) -> list[Tensor]:
    return [x.grad if x.grad is not None else torch.zeros_like(x) for x in leaves]


def _compared(subject: Subject, question: str, one: Outcome, other: Outcome, dtype=torch.float64) -> Finding:
    value = abs(float(one[0]) - float(other[0])) / max(abs(float(one[0])), TINY)
    largest = max((float(g.abs().max()) for g in one[1] if g.numel()), default=0.0)
    apart = max(
        (
            float((a.double() - b.double()).abs().max())
            for a, b in zip(one[1], other[1], strict=True)
            if a.numel()
        ),
        default=0.0,
    )
    return Finding(subject.name, question, value, apart / max(largest, TINY), BOUNDS[dtype])


def _alone(subject: Subject) -> Iterator[Finding]:
    batch = subject.make_batch(torch.float64)
    whole = outcome(subject, batch)
    yield _compared(subject, "asked again", whole, outcome(subject, batch))
    yield _compared(subject, "after another batch", whole, _after_another(subject, batch))
    yield _order(subject, batch, whole)
    yield _padding(subject, batch, whole)
    yield _micro_batches(subject, batch, whole)
    for size in (8, 4096):
        with _tiles(size):
            yield _compared(subject, f"tiles of {size}", whole, outcome(subject, batch))
    with mock.patch.dict(os.environ, {"MMPT_BACKEND": "torch"}):
        yield _compared(subject, "plain torch", whole, outcome(subject, batch))
    single = subject.make_batch(torch.float32)
    close = filled(single, (x[:1].mean() + CLOSE * x for x in floats(single)))
    for question, inputs in (("float32", single), ("float32, close items", close)):
        exact = outcome(subject, cast(inputs, torch.float64))
        yield _compared(subject, question, exact, outcome(subject, inputs), torch.float32)


def _after_another(subject: Subject, batch: Batch) -> Outcome:
    """What a loss says that has seen other items before: nothing of them may be left in it."""
    if subject.draws:
        return outcome(subject, batch)  # its generator has gone on
    loss = subject.make_loss()
    outcome(subject, filled(batch, (3 * x.flip(0) for x in floats(batch))), loss)
    return outcome(subject, batch, loss)


def _order(subject: Subject, batch: Batch, whole: Outcome) -> Finding:
    question = "order of items"
    if not subject.layout or subject.draws:
        return Finding(subject.name, question, note=subject.draws or "the batch is not made of items")
    items = torch.arange(ITEMS).view(VIDEOS, -1).flip(0).flatten()  # the clips of a video stay together
    expected = floats(subject.take(filled(batch, whole[1]), items))
    return _compared(subject, question, (whole[0], expected), outcome(subject, subject.take(batch, items)))


def _padding(subject: Subject, batch: Batch, whole: Outcome) -> Finding:
    question = "padding"
    names = [n for n in batch if n.endswith("_outputs") and batch[n].dim() == 3]
    if not names:
        return Finding(subject.name, question, note="there are no padded positions")
    padded = dict(batch)
    for name in names:
        padded[name] = pad(batch[name], (0, 0, 0, 3), value=5.0)
        mask = name.replace("_outputs", "_mask_outputs")
        padded[mask] = pad(batch[mask], (0, 3))
    value, gradients = outcome(subject, padded)
    lengths = [x.shape[1] if x.dim() == 3 else None for x in whole[1]]
    if any(length and x[:, length:].any() for x, length in zip(gradients, lengths, strict=True)):
        return Finding(subject.name, question, note="fails: padded positions get a gradient")
    cut = [x[:, :length] if length else x for x, length in zip(gradients, lengths, strict=True)]
    return _compared(subject, question, whole, (value, cut))


def _micro_batches(subject: Subject, batch: Batch, whole: Outcome) -> Finding:
    """Gradients of micro-batches added up, where the loss is a mean over items.

    Any other loss keeps its negatives: it is taken of the vectors of all micro-batches, which are computed
    without a graph, and again with one for their share of the gradient (GradCache, arXiv 2101.06983).
    """
    question = f"{PARTS} micro-batches"
    if not subject.layout or subject.draws:
        return Finding(subject.name, question, note=subject.draws or "the batch is not made of items")

    def cut(floating: Sequence[Tensor]) -> list[list[Tensor]]:
        of = filled(batch, floating)
        return [floats(subject.take(of, _share(part, PARTS))) for part in range(PARTS)]

    if subject.adds_up:
        found = [outcome(subject, subject.take(batch, _share(part, PARTS))) for part in range(PARTS)]
        one = whole[0], [x for part in cut(whole[1]) for x in part]
        other = torch.stack([value for value, _ in found]).mean(), [x / PARTS for _, p in found for x in p]
        return _compared(subject, question, one, other)
    leaves = [x.clone().requires_grad_() for x in floats(batch)]
    value = subject.make_loss()(**filled(batch, (x.tanh() for x in leaves)))  # a tower
    value.backward()
    one = value.detach(), [x for part in cut(_gradients(leaves)) for x in part]
    value, gradients = outcome(subject, filled(batch, (x.tanh() for x in floats(batch))))
    parts = [[x.clone().requires_grad_() for x in part] for part in cut(floats(batch))]
    for part, shares in zip(parts, cut(gradients), strict=True):
        torch.autograd.backward([x.tanh() for x in part], shares)
    return _compared(subject, question, one, (value, _gradients([x for part in parts for x in part])))


def _compiled(subject: Subject, backend: str) -> Finding:
    question, batch = f"compiled ({backend})", subject.make_batch(torch.float64)
    whole = outcome(subject, batch)
    torch.compiler.reset()
    compiled = torch.compile(subject.make_loss(), backend=backend)
    try:
        return _compared(subject, question, whole, outcome(subject, batch, compiled))
    except Exception as error:  # whatever the compiler raises is the finding; the other losses go on
        note = f"fails: {type(error).__name__}: {error}"[:200]
        absent = "InvalidCxxCompiler" in note
        return Finding(subject.name, question, note="there is no C++ compiler" if absent else note)


@contextlib.contextmanager
def _tiles(size: int) -> Iterator[None]:
    with (
        mock.patch.dict(late_interaction.TILE_TOKENS, {"cpu": size}),
        mock.patch.object(volume, "rows_per_block", return_value=size),
    ):
        yield


# -- several processes


def _on_ranks(subjects: Sequence[Subject], world: int) -> Iterator[Finding]:
    question = f"{world} processes"
    asked = [s for s in subjects if s.joins and s.layout and not s.draws]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            _rank, (world, asked, folder), nprocs=world, start_method="fork"
        )
        for subject in subjects:
            if subject not in asked:
                yield Finding(subject.name, question, note=subject.draws or "compares within a process")
                continue
            number = asked.index(subject)
            parts = [torch.load(f"{folder}/{number}.{rank}.pt") for rank in range(world)]
            if failed := next((part for part in parts if isinstance(part, str)), ""):
                yield Finding(subject.name, question, note=f"fails: {failed}")
                continue
            batch = subject.make_batch(torch.float64)
            value, gradients = outcome(subject, batch)
            own = [
                floats(subject.take(filled(batch, gradients), _share(rank, world))) for rank in range(world)
            ]
            mean = torch.stack([value for value, _ in parts]).mean()
            yield _compared(
                subject,
                question,
                (value, [x for part in own for x in part]),
                (mean, [x for _, part in parts for x in part]),
            )


def _share(rank: int, world: int) -> Tensor:
    return torch.arange(ITEMS).view(world, -1)[rank]


def _rank(rank: int, world: int, subjects: Sequence[Subject], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    for number, subject in enumerate(subjects):
        batch = subject.make_batch(torch.float64)
        result: tuple[Tensor, list[Tensor]] | str
        try:
            value, gradients = outcome(subject, subject.take(batch, _share(rank, world)))
            result = value, [x / world for x in gradients]  # as data-parallel training averages
        except Exception as error:  # whatever a loss raises is its finding; the other losses go on
            result = f"{type(error).__name__}: {error}"
        torch.save(result, f"{folder}/{number}.{rank}.pt")
    dist.destroy_process_group()


def table(findings: Sequence[Finding]) -> str:
    """A Markdown table: a row a loss, a column a question; of value and gradient the larger difference."""
    questions = list(dict.fromkeys(finding.question for finding in findings))
    rows = ["| loss | " + " | ".join(questions) + " |", "|---" * (len(questions) + 1) + "|"]
    for name in dict.fromkeys(finding.loss for finding in findings):
        of = {finding.question: finding for finding in findings if finding.loss == name}
        rows.append(f"| {name} | " + " | ".join(_cell(of.get(question)) for question in questions) + " |")
    return "\n".join(rows)


def _cell(finding: Finding | None) -> str:
    if finding is None or finding.value is None or finding.gradient is None:
        return "**fails**" if finding and not finding.holds else "-"
    worst = max(finding.value, finding.gradient)
    text = "0" if worst == 0 else f"{worst:.0e}"
    return text if finding.holds else f"**{text}**"
