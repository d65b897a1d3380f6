# What a refused command leaves behind never stands in the way of the corrected one, and a resume says what differs.

import pyarrow.parquet as pq
import pytest
from sky import write_tile
from toy_stamps import make_stamps

from lenspipe.cli import group, run_command


def run(*arguments):
    try:
        run_command(group, list(map(str, arguments)))
    except SystemExit as done:
        return done.code


@pytest.fixture
def tiles(tmp_path):
    write_tile(tmp_path / "tiles", "a", shape=(96, 96), n_source=4, bands="r")
    return tmp_path / "tiles"


def scan(tiles, out, *more):
    return run("scan", tiles, "--runner", "local", "--model", "none", "--no-catalog", "--out", out, *more)


def test_a_scan_that_searched_nothing_leaves_its_folder_to_the_corrected_one(tmp_path, capsys):
    write_tile(tmp_path / "tiles", "a", shape=(96, 96), n_source=4, bands="r", BUNIT="adu")
    out = tmp_path / "run"
    assert scan(tmp_path / "tiles", out) == 3
    assert "has no zero-point" in capsys.readouterr().out
    assert scan(tmp_path / "tiles", out, "--zero-point-ab", 31.4) == 0
    assert pq.read_metadata(out / "candidates.parquet").num_rows > 1
    assert pq.read_metadata(out / "failures.parquet").num_rows == 0
    assert scan(tmp_path / "tiles", out, "--zero-point-ab", 30) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--gpus", 1), ("--scorers-per-gpu", 2)])
def test_the_plain_loop_refuses_what_is_asked_of_gpus_and_a_plan_is_shown_all_the_same(tiles, tmp_path, option, capsys):
    assert scan(tiles, tmp_path / "run", *option) == 2
    assert f"leave {option[0]} out, or take --runner ray" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
    assert scan(tiles, tmp_path / "run", *option, "--dry-run") == 0


def test_a_resume_with_other_settings_says_which_were_and_are(tiles, tmp_path, capsys):
    assert scan(tiles, tmp_path / "run", "--limit", 1) == 0
    more = ["--resume", "--set", "detect.threshold_sigma=2.5", "--set", "survey.zero_point.ab=25"]
    assert scan(tiles, tmp_path / "run", *more) == 2
    said = capsys.readouterr().err
    for part in ("config.detect.threshold_sigma was 1.5 and is 2.5", "survey.zero_point.ab was null and is 25.0"):
        assert part in said
    assert "limit was 1 and is null" in said


def test_a_training_with_other_settings_says_which_were_and_are(toy_data, tmp_path, capsys):
    train = ["train", "--data", toy_data, "--model", "small-cnn", "--runner", "local", "--out", tmp_path / "m"]
    small = ["--set", "sampling.steps_per_epoch=1", "--set", "model.width=2"]
    short = ["--epochs", 1, *small]
    assert run(*train, *short, "--pretrained", tmp_path / "no.safetensors") == 2
    assert not (tmp_path / "m").exists()
    assert run(*train, *short) == 0
    assert run(*train, *small, "--epochs", 2, "--seed", 5) == 2
    said = capsys.readouterr().err
    assert "seed was 0 and is 5" in said
    assert "settings.optim.epochs was 1 and is 2" in said


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory):
    return make_stamps(tmp_path_factory.mktemp("toy") / "stamps", 60, bands=("g", "r", "i"), size=33)


def test_an_evaluation_that_is_refused_leaves_no_folder(toy_data, tiny_model, tmp_path, monkeypatch, capsys):
    from lenspipe.errors import DataError
    from lenspipe.evaluate import report

    def refuse(*given, **more):
        raise DataError("the stamps are of one class")

    evaluate = ["evaluate", tiny_model, "--data", toy_data, "--out", tmp_path / "report"]
    with monkeypatch.context() as broken:
        broken.setattr(report, "stream", refuse)
        assert run(*evaluate) == 2
    assert "of one class" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
