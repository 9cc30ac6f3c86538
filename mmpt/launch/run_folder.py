"""A run folder belongs to one experiment: the configuration it began with, what the files that it reads held,
and what has changed since.

    config.yaml    the resolved project file of the first start; not written again once there is a checkpoint
    content.json   checksums of the files that it names, by key
    history.jsonl  a line per start: when, where, by how many processes, what differed from before

A start with other settings would go on with weights that other settings trained. It is refused, unless the
difference changes nothing that is learned, or is accepted by name, which the history keeps.
"""

from __future__ import annotations

import datetime
import errno
import itertools
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.config import Config, ConfigError, load_config
from mmpt.config.check import check_training
from mmpt.config.load import examined, files_of, leaves
from mmpt.config.rundir import to_dict
from mmpt.config.yamlfile import write_yaml
from mmpt.launch.lock import unwritable
from mmpt.utils.content import ITSELF, changed, digests, versions
from mmpt.utils.files import atomic_write
from mmpt.utils.text import read_json, read_json_log

logger = logging.getLogger(__name__)

CONFIG, CONTENT, HISTORY = "config.yaml", "content.json", "history.jsonl"

# Sections and keys that change nothing of what is learned: how a job is run, watched, measured and ended.
HARMLESS = {
    *("task_type", "slurm_config", "project_dir", "base_dir", "run_task", "task_group", "job"),
    *("eval", "metric", "predictor", "gen_param"),
    *("dataset.val_path", "dataset.test_path", "dataset.split"),
    *("model.compile", "model.activation_checkpointing", "model.micro_batch"),
    *("model.length_buckets", "model.packed"),
}
HARMLESS_FLAGS = {
    *("log_interval", "log_format", "log_file", "no_progress_bar", "tensorboard_logdir", "wandb_project"),
    *("azureml_logging", "aim_repo", "aim_run_hash", "user_dir", "cpu", "empty_cache_freq", "profile"),
    *("all_gather_list_size", "suppress_crashes", "num_workers", "data_buffer_size", "ddp_backend"),
    *("ddp_comm_hook", "bucket_cap_mb", "fix_batches_to_gpus", "find_unused_parameters", "device_id"),
    *("broadcast_buffers", "nprocs_per_node", "local_rank", "heartbeat_timeout", "path"),
    *("disable_validation", "validate_interval", "validate_interval_updates", "validate_after_updates"),
    *("fixed_validation_seed", "valid_subset", "combine_valid_subsets", "batch_size_valid"),
    *("max_tokens_valid", "max_valid_steps", "max_epoch", "max_update", "epochs"),
    *("stop_time_hours", "stop_min_lr"),
    *("save_dir", "save_interval", "save_interval_updates", "keep_interval_updates", "keep_last_epochs"),
    *("keep_interval_updates_pattern", "keep_best_checkpoints", "no_save", "no_epoch_checkpoints"),
    *("no_last_checkpoints", "no_save_optimizer_state", "patience", "checkpoint_suffix"),
    *("write_checkpoints_asynchronously", "load_checkpoint_on_all_dp_ranks"),
    *("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader", "optimizer_overrides"),
}
HARMLESS_BEGIN = "distributed_"  # of flags


@dataclass(frozen=True)
class Difference:
    """A key by which this start is another experiment than the folder's.

    Attributes:
        key: dotted, as YAML spells it.
        old: value of the folder.
        new: value of this start.
        files: of what the key names, these hold something else than before, or are gone.
    """

    key: str
    old: Any
    new: Any
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.files:
            return f"{self.key}: {_shown(self.old)} before, {_shown(self.new)} now"
        names = [name for name in self.files[:3] if name != ITSELF]
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""
        which = f" in {', '.join(names)}{more}" if names else ""
        return f"{self.key}: {_shown(self.new)} holds something else than before{which}"


class RunFolder:
    """The folder of checkpoints of one configuration.

    Args:
        config: of the present start.

    Raises:
        ConfigError: no save_dir, or another key that training needs is missing.
    """

    def __init__(self, config: Config):
        check_training(config)
        self.config, self.path = config, config.save_dir
        self._versions: dict[str, Any] | None = None  # of files, at the last `check_files`

    @property
    def has_begun(self) -> bool:
        """Whether something was trained here."""
        return (self.path / CONFIG).is_file() and any(self.path.glob("checkpoint*.pt"))

    def open(self, accept: Collection[str] = (), processes: int = 1) -> None:
        """Take the folder for this start and note it in the history; one process of a job does.

        Args:
            accept: keys, or sections, whose differences are accepted.
            processes: of the job.

        Raises:
            ConfigError: the folder belongs to another experiment, or cannot be written.
        """
        begun, found = self.has_begun, self.check(accept)
        event: dict[str, Any] = {"event": "went on" if begun else "began"}
        try:
            if not begun:
                tree = to_dict(self.config)
                header = f"{self.config.source} with its includes and defaults, as training began"
                write_yaml(self.path / CONFIG, tree, header=header)
                with atomic_write(self.path / CONTENT, "w") as file:
                    json.dump(self._content(), file, indent=0)
            else:
                event["changes"] = self._unlike(self._stored())
                self._tell_of_processes(processes)
            if found:
                event["accepted"] = [difference.key for difference in found]
                self._accept(found)
            self.note(**event, processes=processes)
        except OSError as error:
            raise ConfigError(unwritable(self.path, error)) from error

    def check_before(self, accept: Collection[str] = ()) -> None:
        """What a launcher asks before it starts anything: may this start write here?

        Raises:
            ConfigError: the folder cannot be written, or belongs to another experiment.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ConfigError(unwritable(self.path, error)) from error
        self.check(accept)

    def check(self, accept: Collection[str] = ()) -> list[Difference]:
        """The differences that are accepted.

        Raises:
            ConfigError: the folder belongs to another experiment; lists the keys that are not accepted.
        """
        found = self.differences()
        refused = [difference for difference in found if not _covered(difference.key, accept)]
        if refused:
            keys = ",".join(_summed_up([difference.key for difference in refused]))
            raise ConfigError(
                f"{self.path} belongs to another experiment: it was trained with other settings.\n"
                + "".join(f"    {difference}\n" for difference in refused)
                + "Give this one a folder of its own (--set fairseq.checkpoint.save_dir=FOLDER), or go on in "
                f"this one, which its {HISTORY} will record: --accept-changes {keys}"
            )
        return found

    def differences(self) -> list[Difference]:
        """What makes this start another experiment than the folder's; nothing in a folder that has not
        begun."""
        if not self.has_begun:
            return []
        before, now, found = self._stored(), _flat(to_dict(self.config)), []
        content, paths = self._kept_content(), self._named()
        for key in dict.fromkeys((*before, *now)):
            old, new = before.get(key), now.get(key)
            if self._is_harmless(key, new):
                continue
            named, known = paths.get(key, []), content.get(key)
            if known and len(known) == len(named):
                if old == new and not any(map(os.path.exists, named)):
                    continue  # it is gone: who needs it says so
                files = [name for one, path in zip(known, named, strict=True) for name in changed(one, path)]
                if files:
                    found.append(Difference(key, old, new, tuple(files)))
            elif _canonical(old) != _canonical(new):
                found.append(Difference(key, old, new))
        return found

    def check_items(self, items: int, accept: Collection[str] = ()) -> None:
        """Compare the size of the training set, on which the updates of an epoch depend, with that of the
        first start.

        Raises:
            ConfigError: it differs.
        """
        sizes = [line["items"] for line in self.history() if "items" in line]
        if sizes and sizes[-1] != items and self.has_begun and not _covered("dataset", accept):
            raise ConfigError(
                f"{self.path} belongs to another experiment: its training set had {sizes[-1]} items, now "
                f"there are {items}, so the updates of an epoch differ. Restore the data, choose another "
                "folder, or go on with --accept-changes dataset"
            )
        if not sizes or sizes[-1] != items:
            self.note(event="training set", items=items)

    def check_files(self) -> None:
        """Between epochs: does what the settings name hold what it held when training began? Files are read
        only where sizes or times are others than at the call before.

        Raises:
            ConfigError: it does not; the message names the files.
        """
        named = self._named()
        now = {path: versions(path) for paths in named.values() for path in paths}
        before, self._versions = self._versions, now
        if before in (None, now):
            return
        content = self._kept_content()
        found = [
            Difference(key, path, path, tuple(files))
            for key, paths in named.items()
            for known, path in zip(content.get(key, ()), paths, strict=False)
            if (files := changed(known, path))
        ]
        if found:
            raise ConfigError(
                f"{self.config.source}: files were changed while training read them:\n"
                + "".join(f"    {difference}\n" for difference in found)
                + "Restore them and go on from the last checkpoint, or start anew in another folder."
            )

    def history(self) -> list[dict[str, Any]]:
        """The starts since the folder began, oldest first; a line that a crash cut off is left out."""
        entries: list[dict[str, Any]] = []
        path = self.path / HISTORY
        for entry in read_json_log(path)[0] if path.is_file() else ():
            entries = [entry] if entry.get("event") == "began" else [*entries, entry]
        return entries

    def note(self, **entry: Any) -> None:
        """Append to the history."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        place = {"host": socket.gethostname(), "pid": os.getpid()}
        if "SLURM_JOB_ID" in os.environ:
            place["slurm_job"] = os.environ["SLURM_JOB_ID"]
        line = json.dumps({"time": now} | entry | place, default=str)
        text = _text(self.path / HISTORY) or "\n"
        with open(self.path / HISTORY, "a") as file:
            file.write(f"{line}\n" if text.endswith("\n") else f"\n{line}\n")
            file.flush()
            os.fsync(file.fileno())

    def changes(self) -> dict[str, Any]:
        """Every key, harmless or not, whose value is another than config.yaml says."""
        return {key: new for key, (_, new) in self._unlike(self._begun()).items()}

    def _tell_of_processes(self, processes: int) -> None:
        before = next((line["processes"] for line in reversed(self.history()) if "processes" in line), None)
        if before not in (None, processes) and self.config.dataset.global_batch is None:
            logger.warning(
                "%s: %d processes trained here before, %d go on: an update sees other batches than before. "
                "With dataset.global_batch it would see the same.",
                self.path,
                before,
                processes,
            )

    def _unlike(self, before: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Old and new value of every key that is another now."""
        now = _flat(to_dict(self.config))
        return {
            key: [before.get(key), now.get(key)]
            for key in dict.fromkeys((*before, *now))
            if _canonical(before.get(key)) != _canonical(now.get(key))
        }

    def _begun(self) -> dict[str, Any]:
        """What config.yaml says."""
        return _flat(to_dict(examined(self.path / CONFIG)[0]))

    def _stored(self) -> dict[str, Any]:
        """What config.yaml says, and what the history says has changed since."""
        stored = self._begun()
        for entry in self.history():
            stored |= {key: new for key, (_, new) in entry.get("changes", {}).items()}
        return stored

    def _accept(self, found: Collection[Difference]) -> None:
        """From now on the content is what it is now."""
        content = self._kept_content()
        now = self._content()
        for difference in found:
            content.pop(difference.key, None)
            if difference.key in now:
                content[difference.key] = now[difference.key]
        with atomic_write(self.path / CONTENT, "w") as file:
            json.dump(content, file, indent=0)

    def _kept_content(self) -> dict[str, list[dict[str, str]]]:
        path = self.path / CONTENT
        return read_json(path, dict, empty=True) if path.is_file() else {}

    def _content(self) -> dict[str, list[dict[str, str]]]:
        """Key -> checksums of each path that its value names, where there is something."""
        found = {key: [digests(path) for path in paths] for key, paths in self._named().items()}
        return {key: held for key, held in found.items() if any(held)}

    def _named(self) -> dict[str, list[str]]:
        """Key -> the paths in its value, of keys on which training depends; a project file that is mixed in
        stands for its includes and for what it names, too."""
        named = self._paths_of(self.config)
        for name, entry in (self.config.mix or {}).items():
            of_set = self._paths_of(load_config(entry["project"], entry.get("settings", ())))
            named[f"mix.{name}.project"] = [*files_of(entry["project"]), *itertools.chain(*of_set.values())]
        return named

    def _paths_of(self, config: Config) -> dict[str, list[str]]:
        return {
            key: _paths(value)
            for key, value in _flat(to_dict(config)).items()
            if not self._is_harmless(key, value)
        }

    def _is_harmless(self, key: str, new: Any) -> bool:
        section, _, rest = key.partition(".")
        if section != "fairseq":
            return section in HARMLESS or key in HARMLESS
        flag = rest.partition(".")[2]
        if flag == "restore_file" and new is not None:
            # weights within the folder are taken as they are asked for, whatever else it holds
            return Path(new).resolve().parent == self.path.resolve()
        return flag in HARMLESS_FLAGS or flag.startswith(HARMLESS_BEGIN)


def paths_in(tree: Mapping[str, Any]) -> list[str]:
    """Everything in nested maps that may be a path."""
    return [path for value in _flat(tree).values() for path in _paths(value)]


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value that says something: not null, nor false for a flag of fairseq."""
    return {
        key: value
        for key, value in leaves(tree)
        if value not in (None, {}) and not (value is False and key.startswith("fairseq."))
    }


def _paths(value: Any) -> list[str]:
    """The texts of a value that may be paths; a word alone is one only where it is a file."""
    texts = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(text, str) for text in texts):
        return []
    return [text for text in texts if os.sep in text or os.path.isfile(text)]


def _summed_up(keys: list[str]) -> list[str]:
    """A section in place of its keys where most of it differs, as with another loss."""
    sections = Counter(key.partition(".")[0] for key in keys if not key.startswith("fairseq."))
    short = [section if sections[section := key.partition(".")[0]] > 3 else key for key in keys]
    return list(dict.fromkeys(short))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _covered(key: str, accept: Collection[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in accept)


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
