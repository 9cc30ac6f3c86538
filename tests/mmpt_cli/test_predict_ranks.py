"""Several processes write the files of one."""

import subprocess
import sys

import pytest

from mmpt_cli import predict
from tests.conftest import ROOT


@pytest.mark.slow
def test_two_processes_write_the_same_files_byte_by_byte(project, tmp_path):
    words = [project(), "--device", "cpu", "--checkpoint", str(tmp_path / "run" / "checkpoint_best.pt")]
    predict.main([*words, "--out", str(tmp_path / "one"), "--save-predictions"])
    command = [sys.executable, "-m", "mmpt_cli.predict", *words, "--out", str(tmp_path / "two")]
    subprocess.run([*command, "--save-predictions", "--nproc", "2"], cwd=ROOT, check=True)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) >= 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_processes_are_started_with_the_words_of_the_command(monkeypatch):
    started = []
    monkeypatch.setattr(predict, "run_ranks", lambda *given: started.append(given) or 3)
    with pytest.raises(SystemExit) as left:
        predict.main(["FILE", "--nproc", "4"])
    ((topology, module, words),) = started
    assert left.value.code == 3 and topology.world_size == 4 and module == "mmpt_cli.predict"
    assert words == ["FILE", "--nproc", "4"]
