"""Does alignment-aware training help under noisy narration? Losses from common starts, on the synthetic data.

    python -m experiments.noisy_narration            # projects/toy/compare_noise.yaml: train, test, report
    python -m experiments.noisy_narration --report   # the record and the figure of what is done

Seeds come last: with the first one through, there is a table of all losses and noises. What is done is not
done again, so a run that was stopped goes on. Trained in this process, with the data sets, models and losses
of the project files; AdamW with a constant rate, so that a model midway is one that could have been kept.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.comparison import TOY, world
from experiments.comparison_tests import step_costs
from experiments.noisy_narration_report import write_figure, write_study
from mmpt.api.evaluation import Evaluation
from mmpt.config import Config, load_config
from mmpt.config.fairseq_args import batch_size
from mmpt.config.rundir import to_dict
from mmpt.config.yamlfile import read_yaml
from mmpt.demo.toy_runs import move_folders
from mmpt.evaluators.paired_runs import packed
from mmpt.evaluators.paragraphs import Paragraphs, Spread, ordered_measures, rank_paragraphs
from mmpt.evaluators.ranking import ScoreMatrix, count_ranks
from mmpt.synthetic.build import build_world
from mmpt.tasks import Task, build_task
from mmpt.utils.files import atomic_write
from mmpt.utils.log import short_errors
from mmpt.utils.seed import set_seed

STUDY = Path("projects/toy/compare_noise.yaml")
DATA, OUT, RECORDS = Path("data/compare"), Path("runs"), Path("docs/records")
WARMUP = 10  # updates
LATER = 100  # epoch from which losses draw, so that they see none of the batches of their start again
EQUAL = ("equal updates", "equal time")
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Choice:
    """What tuning decides of a loss: its learning rate, and which value of its own key."""

    rate: float
    other: bool


@dataclass(frozen=True)
class Study:
    """The file, and where worlds and runs are kept."""

    tree: Mapping[str, Any]
    data: Path
    out: Path

    @property
    def losses(self) -> dict[str, Mapping[str, Any]]:
        return self.tree["losses"]

    @property
    def reference(self) -> str:
        """The loss that trains the starts, and that the others are compared with."""
        return next(iter(self.losses))

    @property
    def worlds(self) -> dict[str, Any]:
        """Name -> settings, that of the tuning last."""
        entries = [*self.tree["noise"], self.tree["tuning"]["noise"]]
        return dict(world(entry, self.tree["size"]) for entry in entries)

    @property
    def noises(self) -> list[str]:
        return list(self.worlds)[:-1]

    def config(self, loss: str, noise: str, seed: int, other: bool = False) -> Config:
        """The project that trains a loss on a world."""
        entry = self.losses[loss]
        keys = {**self.tree["set"], **entry.get("set", {}), **(entry["or"] if other else {})}
        return self._load(self.tree["project"], keys | {"fairseq.common.seed": seed}, noise)

    def test(self, path: str, noise: str) -> Config:
        """A test: the same captions and clips on every world, in the word pieces of this one."""
        return self._load(path, {**self.tree["test_set"], "eval.bootstrap": 0, "eval.baselines": []}, noise)

    def _load(self, project: str, keys: Mapping[str, Any], noise: str) -> Config:
        texts = [f"{key}={'null' if value is None else value}" for key, value in keys.items()]
        config = load_config(project, [*move_folders(project, {TOY: str(self.data / noise)}), *texts])
        # a project file cannot say null to a loss, whose default would come back
        nulls = {key[5:]: None for key, value in keys.items() if value is None and key.count(".") == 1}
        own = {key: None for key in nulls if f"loss.{key}" in keys}
        return dataclasses.replace(config, loss=config.loss and {**config.loss, **own})


_drawn: dict[Any, list[Mapping[str, Any]]] = {}  # of the last way of drawing alone


def batches(task: Task, config: Config, epoch: int, number: int) -> list[Mapping[str, Any]]:
    """The first training batches from an epoch on; losses that draw alike get the same ones, drawn once."""
    key = repr((config.dataset, batch_size(config), config.trainer.seed, epoch, number))
    if key not in _drawn:
        _drawn.clear()
        _drawn[key] = list(itertools.islice(_draw(task, config, epoch), number))
    return _drawn[key]


def _draw(task: Task, config: Config, epoch: int) -> Iterator[Mapping[str, Any]]:
    dataset, size = task.build_dataset("train"), batch_size(config) or 1
    for now in itertools.count(epoch):
        dataset.set_epoch(now)
        task.begin_epoch(dataset, now, None)
        order = np.random.default_rng((dataset.seed, now)).permutation(len(dataset)).tolist()
        for first in range(0, len(order) - size + 1, size):
            yield dataset.collate([dataset[index] for index in order[first : first + size]])


def train(config: Config, rate: float, start: State | None, updates: list[int]) -> list[State]:
    """The weights after each of these numbers of updates, in their order."""
    set_seed(config.trainer.seed)
    task = build_task(config)
    model = task.build_model().train()
    if start is not None:
        model.load_state_dict(start)
    decay = config.fairseq["optimization"]["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=decay)
    found: dict[int, State] = {}
    epoch = 1 if start is None else LATER
    for number, batch in enumerate(batches(task, config, epoch, max(updates)), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, number / WARMUP)
        optimizer.zero_grad()
        task(model, batch).loss.backward()
        optimizer.step()
        if number in updates:
            found[number] = copy.deepcopy(model.state_dict())
    return [found[number] for number in updates]


class Tests:
    """The test sets, read once.

    Args:
        study: what is tested.
        paths: test -> project file.
        noise: world.
    """

    def __init__(self, study: Study, paths: Mapping[str, str], noise: str):
        configs = {name: study.test(path, noise) for name, path in paths.items()}
        self.evaluations = {name: Evaluation(config, device="cpu") for name, config in configs.items()}
        for evaluation in self.evaluations.values():
            evaluation.evaluator.predictor.texts = lambda caps: []  # words, which no measure reads
        self.models = {name: evaluation.load(None)[0] for name, evaluation in self.evaluations.items()}
        self.batches = {name: list(evaluation.loader) for name, evaluation in self.evaluations.items()}

    def ranks(self, state: State) -> dict[str, np.ndarray]:
        """Measure -> where each query has its item, by cosines of centred embeddings."""
        found = {}
        for name, evaluation in self.evaluations.items():
            self.models[name].load_state_dict(state)
            arrays = evaluation.evaluator.predictor(self.batches[name], self.models[name], "cpu")
            if name == "clips":
                matrix = ScoreMatrix(queries=arrays["pooled_text"], gallery=arrays["pooled_video"])
                cosine = matrix.centred_cosine()
                counts = {"text to clip": count_ranks(cosine), "clip to text": count_ranks(cosine.transposed)}
            else:
                run = evaluation.evaluator.metric.read(**arrays)
                counts = ordered(run._replace(matrix=run.matrix.centred_cosine()))
                suffix = ", background" if name == "background" else ""
                counts = {f"{measure or 'Cap. Avg.'}{suffix}": count for measure, count in counts.items()}
            found |= {measure: count.ranks("mean") for measure, count in counts.items()}
        return found

    def videos(self) -> dict[str, list[int]]:
        """Measure -> the video of each query."""
        names = [str(item[0]) for batch in self.batches["clips"] for item in batch["video_id"]]
        number = {name: place for place, name in enumerate(dict.fromkeys(names))}
        return {
            "clips": [number[name] for name in names],
            "paragraphs": list(range(len(self.batches["background"]))),  # one video a batch
        }


def ordered(run: Paragraphs) -> dict[str, Any]:
    """Cap. Avg., DTW and OTAM."""
    spread = Spread.of(run.matrix)
    return rank_paragraphs(run, lambda block: ordered_measures(block, spread))


def costs(study: Study) -> dict[str, float]:
    """Milliseconds of CPU time of an update of each loss, measured once, interleaved."""
    kept = study.out / "costs.json"
    if not kept.is_file():
        configs = {loss: study.config(loss, study.noises[0], 0) for loss in study.losses}
        save(kept, step_costs(configs))
    return json.loads(kept.read_text())


def start(study: Study, noise: str, seed: int) -> State:
    """The weights that all losses of a world and seed go on from."""
    path = study.out / noise / f"seed{seed}" / "start.pt"
    if not path.is_file():
        config = study.config(study.reference, noise, seed)
        (state,) = train(config, study.tree["rate"], None, [study.tree["start"]])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            torch.save(state, file)
    return torch.load(path, weights_only=True)


def tune(study: Study) -> dict[str, Choice]:
    """Each loss's best of the same number of tries, by the mean reciprocal rank of clips of validation videos
    in both directions, which so few queries tell better than R@1. All tries are kept in tuning.json."""
    about, kept = study.tree["tuning"], study.out / "tuning.json"
    tried = json.loads(kept.read_text()) if kept.is_file() else {}
    tests = None
    for loss in study.losses:
        for other in (False, True):
            for rate in about["rates"]:
                name = f"rate {rate:g}, {'other' if other else 'own'} value"
                if name in tried.get(loss, {}):
                    continue
                tests = tests or Tests(study, {"clips": about["test"]}, about["noise"])
                config = study.config(loss, about["noise"], about["seed"], other)
                begun = start(study, about["noise"], about["seed"])
                ranks = tests.ranks(train(config, rate, begun, [study.tree["updates"]])[0])
                score = float(np.mean([(1 / values).mean() for values in ranks.values()]))
                tried.setdefault(loss, {})[name] = {"rate": rate, "other": other, "score": score}
                save(kept, tried)
                print(f"tuning {loss}: {name}: {100 * score:.2f}", flush=True)
    best = {loss: max(tries.values(), key=lambda found: found["score"]) for loss, tries in tried.items()}
    return {loss: Choice(found["rate"], found["other"]) for loss, found in best.items()}


def perform(study: Study) -> None:
    """Build, measure, tune, train and test what is not there yet."""
    for name, settings in study.worlds.items():
        build_world(study.data / name, settings)
    cost, chosen, updates = costs(study), tune(study), study.tree["updates"]
    for seed in study.tree["seeds"]:
        for noise in study.noises:
            tests = None
            folder = study.out / noise / f"seed{seed}"
            for loss in (None, *study.losses):
                path = folder / f"{loss or 'start'}.json"
                if path.is_file():
                    continue
                tests = tests or Tests(study, study.tree["tests"], noise)
                begin = time.perf_counter()
                begun = start(study, noise, seed)
                if loss is None:
                    states = {EQUAL[0]: begun}
                else:
                    config = study.config(loss, noise, seed, chosen[loss].other)
                    midway = min(updates, max(1, round(updates * cost[study.reference] / cost[loss])))
                    trained = train(config, chosen[loss].rate, begun, [updates, midway])
                    states = dict(zip(EQUAL, trained, strict=True))
                hits = {
                    when: {measure: ranks <= 1 for measure, ranks in tests.ranks(state).items()}
                    for when, state in states.items()
                }
                if not (study.out / "videos.json").is_file():
                    save(study.out / "videos.json", tests.videos())
                save(
                    path,
                    {
                        when: {measure: packed(values) for measure, values in of_state.items()}
                        for when, of_state in hits.items()
                    },
                )
                means = " ".join(f"{100 * values.mean():.1f}" for values in hits[EQUAL[0]].values())
                print(f"{path}: {means} ({time.perf_counter() - begin:.0f} s)", flush=True)


def save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)


def gather(study: Study) -> dict[str, Any]:
    """What the record is made from: of each loss, the seeds that are through with every noise."""

    def path(seed: int, noise: str, loss: str) -> Path:
        return study.out / noise / f"seed{seed}" / f"{loss}.json"

    rows, noises = ["start", *study.losses], study.noises
    seeds = {
        loss: [s for s in study.tree["seeds"] if all(path(s, noise, loss).is_file() for noise in noises)]
        for loss in rows
    }
    if not all(seeds.values()):
        raise SystemExit(f"error: no seed of {study.out} is through. Start it without --report.")
    hits: dict[str, Any] = {loss: {} for loss in rows}
    for noise, loss in itertools.product(noises, rows):
        for seed in seeds[loss]:
            for when, measures in json.loads(path(seed, noise, loss).read_text()).items():
                test = hits[loss].setdefault(f"{noise}, {when}", {})
                for measure, values in measures.items():
                    test.setdefault(measure, []).append(values)
    chosen = tune(study)
    settings = {loss: to_dict(study.config(loss, study.noises[0], 0, chosen[loss].other)) for loss in chosen}
    return {
        "hits": hits,
        "videos": json.loads((study.out / "videos.json").read_text()),
        "configs": settings,
        "seeds": seeds,
        "noises": noises,
        "costs": costs(study),
        "tuning": json.loads((study.out / "tuning.json").read_text()),
        "chosen": {loss: dataclasses.asdict(choice) for loss, choice in chosen.items()},
        "study": dict(study.tree),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", type=Path, default=STUDY)
    parser.add_argument("--report", action="store_true", help="nothing is trained")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    short_errors()
    study = Study(read_yaml(args.study), DATA, OUT / args.study.stem)
    if not args.report:
        perform(study)
    report(study, RECORDS / args.study.stem)


def report(study: Study, record: Path) -> None:
    """Write the record, and the figure that the file names."""
    write_study(record, gather(study))
    if "figure" in study.tree:
        write_figure(Path(study.tree["figure"]), record)
    print(f"{record} is written. Its tables go into the pages by: mmpt verify-results --write")


if __name__ == "__main__":
    main()
