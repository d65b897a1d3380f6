import contextlib
import resource
import shutil
import sys

import pytest

from lenspipe.cli import group, run_command
from lenspipe.disk import locked
from lenspipe.errors import ConfigError
from lenspipe.nn.card import CARD_FILE, read_card, write_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.rundir import atomic_path


@contextlib.contextmanager
def small_disk(n_bytes):
    """A limit on the size of files stands for a full disk: a write fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = sys.dont_write_bytecode  # Python keeps what it could write of a module as if it were whole
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        sys.dont_write_bytecode = written
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_card_of_a_model_as_it_was(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    card, before = read_card(tmp_path / "model"), (tmp_path / "model" / CARD_FILE).read_bytes()
    with small_disk(100), pytest.raises(OSError, match="File too large"):
        write_card(tmp_path / "model", card.model_copy(update={"name": "calibrated"}))
    assert (tmp_path / "model" / CARD_FILE).read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [CARD_FILE, "weights.safetensors"]


def test_weights_are_not_written_through_a_link_of_the_name_of_a_scratch_file(tiny_model, tmp_path):
    from lenspipe.nn.checkpoint import load_model

    (tmp_path / "thesis").write_text("x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors.tmp").symlink_to(tmp_path / "thesis")
    save_model(tmp_path / "model", *load_model(tiny_model))
    assert (tmp_path / "thesis").read_text() == "x"


def test_a_file_with_a_name_of_251_bytes_can_be_written(tmp_path):
    path = tmp_path / ("é" * 123 + ".json")
    with atomic_path(path) as scratch:
        scratch.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("what", "said"), [("full", "File too large"), ("read-only", "Not a directory")])
def test_a_disk_that_cannot_be_written_is_one_line_and_exit_code_2(tmp_path, capsys, what, said):
    (tmp_path / "file").write_text("in the way of a folder")
    out = tmp_path / "out" if what == "full" else tmp_path / "file" / "out"
    asked = ["simulate", "--recipe", "ground-gri", "--count", "2", "--seed", "1", "--runner", "local"]
    with small_disk(5000), pytest.raises(SystemExit) as stopped:
        run_command(group, [*asked, "--out", str(out)])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lenspipe: " in line]
    assert said in line


def test_a_folder_that_cannot_be_made_is_a_wrong_request(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ConfigError, match="cannot make the run folder: Not a directory"),
        locked(tmp_path / "file" / "run"),
    ):
        pass
