"""Reading YAML: includes, merging, overrides, and errors that name what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.config import Config, ConfigError, load_config, merge, recursive_config
from tests.conftest import ROOT


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_maps_merge_while_lists_scalars_and_nulls_replace(tmp_path):
    write(
        tmp_path / "base.yaml",
        "fairseq: {optimization: {lr: [1, 2], max_epoch: 3}}\nmodel: {mm_encoder_cls: A, model_cls: B}\n",
    )
    top = write(
        tmp_path / "top.yaml",
        "includes: base.yaml\nfairseq: {optimization: {lr: [5]}}\nmodel:\n  mm_encoder_cls:\n",
    )
    assert recursive_config(top) == {
        "fairseq": {"optimization": {"lr": [5], "max_epoch": 3}},
        "model": {"mm_encoder_cls": None, "model_cls": "B"},
    }


def test_a_file_that_names_another_loss_leaves_the_keys_of_the_first_behind(tmp_path):
    write(tmp_path / "base.yaml", "loss: {loss_cls: A, beta: 0.3, part: {x: 1}}\n")
    other = write(tmp_path / "other.yaml", "includes: base.yaml\nloss: {loss_cls: B}\n")
    same = write(tmp_path / "same.yaml", "includes: base.yaml\nloss: {loss_cls: A, part: {y: 2}}\n")
    assert recursive_config(other)["loss"] == {"loss_cls": "B"}
    assert recursive_config(same)["loss"] == {"loss_cls": "A", "beta": 0.3, "part": {"x": 1, "y": 2}}


def test_a_map_replaces_a_scalar_and_a_scalar_a_map():
    assert merge({"a": 1, "b": {"c": 2}}, {"a": {"x": 1}, "b": 3}) == {"a": {"x": 1}, "b": 3}


def test_merging_leaves_its_inputs_alone():
    base = {"a": {"b": [1]}}
    merge(base, {"a": {"c": 2}})["a"]["b"].append(9)
    assert base == {"a": {"b": [1]}}


def test_an_include_is_found_below_the_current_directory_first(tmp_path, monkeypatch):
    write(tmp_path / "cwd/base.yaml", "task: here\n")
    write(tmp_path / "project/base.yaml", "task: there\n")
    top = write(tmp_path / "project/top.yaml", "includes: base.yaml\n")
    monkeypatch.chdir(tmp_path / "cwd")
    assert recursive_config(top) == {"task": "here"}


def test_an_include_is_found_beside_the_including_file_and_in_folders_above(tmp_path):
    write(tmp_path / "projects/task/base.yaml", "includes: sibling.yaml\n")
    write(tmp_path / "projects/task/sibling.yaml", "task: found\n")
    top = write(tmp_path / "projects/retri/top.yaml", "includes: projects/task/base.yaml\n")
    assert recursive_config(top) == {"task": "found"}


def test_includes_in_a_circle_are_refused(tmp_path):
    write(tmp_path / "a.yaml", "includes: b.yaml\n")
    write(tmp_path / "b.yaml", "includes: a.yaml\n")
    with pytest.raises(ConfigError, match=r"includes itself: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        recursive_config(tmp_path / "a.yaml")


def test_a_missing_include_names_both_files(tmp_path):
    top = write(tmp_path / "top.yaml", "includes: gone.yaml\n")
    with pytest.raises(ConfigError, match=r"top\.yaml: includes: gone\.yaml does not exist"):
        recursive_config(top)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        recursive_config(tmp_path / "gone.yaml")


def test_a_missing_file_of_another_release_names_those_of_its_name():
    with pytest.raises(ConfigError, match=r"Of that name there are .*projects/retri/tempclr/crosstask\.yaml"):
        recursive_config("configs/crosstask.yaml")


def test_a_list_of_includes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="includes: expected one path"):
        recursive_config(write(tmp_path / "top.yaml", "includes: [a.yaml, b.yaml]\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [1, 2\n", r"x\.yaml, line \d+: not valid YAML"),
        ("- 1\n", "expected `key: value` lines"),
        ("task: a\ntask: b\n", r"line 2: not valid YAML: key 'task' is given twice"),
        ("task: 010\n", r"x\.yaml, line 1: not valid YAML: 010 is an octal number"),
        ("task: 1:30\n", r"1:30 is a number to the base 60"),
        ("loss: {beta: .nan}\n", r"\.nan is no finite number"),
        ("loss: {beta: 1e400}\n", r"1e400 is no finite number"),
        ("loss: {beta: " + "9" * 5000 + "}\n", "a number of more than 40 digits"),
        ("task: {? [a] : 1}\n", "line 1: not valid YAML: a list or a map where the name of a key"),
        ("task: " + "a" * 1_000_001, "1000007 characters, expected at most 1000000"),
        ("task: " + "[" * 40 + "]" * 40, "more than 32 levels of nesting"),
        ("task: &a [*a]\n", "more than 32 levels of nesting, or an alias inside"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
                for old, new in zip("abcdef", "bcdefg", strict=True)
            ),
            "more than 20000 values",
        ),
        ("task: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_bad_yaml_names_the_file(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        recursive_config(write(tmp_path / "x.yaml", text))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("1e-05", 1e-5), ("5.0e-05", 5e-5), ("-2E3", -2000.0), ("1_0e1", 100.0)],
)
def test_numbers_with_an_exponent_are_floats(tmp_path, text, value):
    read = recursive_config(write(tmp_path / "x.yaml", f"loss: {{beta: {text}}}\n"))["loss"]["beta"]
    assert isinstance(read, float)
    assert read == value


def test_dates_and_tuples_stay_text(tmp_path):
    path = write(
        tmp_path / "x.yaml",
        "project_dir: 2024-01-02\nfairseq:\n  optimization:\n    adam_betas: (0.9, 0.98)\n",
    )
    config = load_config(path)
    assert config.project_dir == "2024-01-02"
    assert config.fairseq["optimization"]["adam_betas"] == "(0.9, 0.98)"


def test_an_empty_file_gives_the_defaults(tmp_path):
    path = write(tmp_path / "x.yaml", "")
    assert load_config(path) == Config(source=str(path))


def test_overrides_come_last_and_keep_their_yaml_type(tmp_path):
    path = write(tmp_path / "x.yaml", "dataset: {max_len: 96, max_video_len: 32}\n")
    config = load_config(
        path, ["dataset.max_len=48", "fairseq.optimization.lr=[1e-4, 1e-5]", "model.mm_encoder_cls=null"]
    )
    assert config.dataset.max_len == 48
    assert config.dataset.max_video_len == 32
    assert config.fairseq["optimization"]["lr"] == [1e-4, 1e-5]


@pytest.mark.parametrize("text", ["dataset.max_len", "=3", "dataset.=3"])
def test_a_malformed_override_shows_the_expected_form(tmp_path, text):
    with pytest.raises(ConfigError, match="expected section.key=value"):
        load_config(write(tmp_path / "x.yaml", ""), [text])


def test_a_wrong_override_is_blamed_on_the_command_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^--set: dataset\.max_lenn: unknown key"):
        load_config(write(tmp_path / "x.yaml", ""), ["dataset.max_lenn=3"])


def test_loading_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from mmpt.config import load_config; "
        "load_config('projects/retri/norton/how2_pretrain.yaml');"
        "print([m for m in ('torch', 'transformers', 'fairseq', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "[]"


def test_a_project_file_that_is_shipped_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    here = recursive_config(ROOT / "projects/toy/norton.yaml")
    monkeypatch.chdir(tmp_path)
    assert recursive_config("projects/toy/norton.yaml") == here
    assert load_config("projects/toy/norton.yaml").loss["loss_cls"] == here["loss"]["loss_cls"]


def test_a_file_below_the_current_directory_goes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects/toy").mkdir(parents=True)
    write(tmp_path / "projects/toy/norton.yaml", "task: mine\n")
    assert recursive_config("projects/toy/norton.yaml") == {"task": "mine"}


def test_a_yaml_elsewhere_includes_a_shipped_one_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = write(tmp_path / "mine.yaml", "includes: projects/toy/norton.yaml\ntask: mine\n")
    assert recursive_config(mine) == {**recursive_config("projects/toy/norton.yaml"), "task": "mine"}


def test_paths_with_a_leading_dot_are_beside_the_file_that_says_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    write(tmp_path / "a/base.yaml", "dataset: {meta_path: ./list.txt, vfeat_dir: data/x}\nl: [./one]\n")
    top = write(tmp_path / "a/b/top.yaml", "includes: a/base.yaml\ndataset: {tfeat_dir: ./tokens}\n")
    assert recursive_config(top) == {
        "dataset": {
            "meta_path": "a/list.txt",  # its file was found below the current directory
            "vfeat_dir": "data/x",
            "tfeat_dir": str(tmp_path / "a/b/tokens"),
        },
        "l": ["a/one"],
    }


def test_an_include_with_a_leading_dot_is_beside_the_including_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    write(tmp_path / "base.yaml", "task: here\n")
    top = write(tmp_path / "a/top.yaml", "includes: ./base.yaml\n")
    with pytest.raises(ConfigError, match=r"top\.yaml: includes: \./base\.yaml does not exist"):
        recursive_config(top)
    write(tmp_path / "a/base.yaml", "task: beside\n")
    assert recursive_config(top) == {"task": "beside"}
