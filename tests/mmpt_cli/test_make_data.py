import pytest

from mmpt_cli.make_data import main

MINI = [
    "--size",
    "tiny",
    "--set",
    "train_videos=6",
    "--set",
    "test_groups=1",
    "--set",
    "labelled_videos=4",
    "--set",
    "max_gallery=8",
]


def test_data_is_made_once_and_then_reused(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "toy"), *MINI]
    assert main(arguments) == 0 and "written" in capsys.readouterr().out
    assert main(arguments) == 0 and "there already" in capsys.readouterr().out


def test_a_changed_knob_makes_other_data(tmp_path, capsys):
    main(["--out", str(tmp_path / "toy"), *MINI])
    main(["--out", str(tmp_path / "toy"), *MINI, "--set", "p_silent=0.5"])
    assert "written" in capsys.readouterr().out


def test_an_unknown_knob_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="knob.p_noise: unknown key"):
        main(["--out", str(tmp_path / "toy"), "--set", "p_noise=1"])
    assert not any(tmp_path.iterdir())


def test_knobs_are_listed_with_their_meaning(capsys):
    assert main(["--list-knobs"]) == 0
    assert "p_chatter" in capsys.readouterr().out
