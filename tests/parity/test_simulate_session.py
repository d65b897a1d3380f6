import pytest

from lenspipe.cli import run_command
from lenspipe.cli.simulate import command
from lenspipe.distributed import session
from lenspipe.errors import ConfigError

TIMED_OUT = "The current node timed out during startup.\nThis could happen because the GCS has become overloaded."


@pytest.fixture
def ray_that_does_not_start(monkeypatch):
    """As on an overloaded machine: Ray raises a bare Exception after 30 s."""
    session.prepare_environment()
    import ray

    def fail(**settings):
        raise Exception(TIMED_OUT)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)


def test_a_ray_that_does_not_start_is_one_line_that_says_what_to_do(ray_that_does_not_start, tmp_path, capsys):
    ask = ["--recipe", "ground-gri", "--count", "1", "--out", str(tmp_path / "s")]
    with pytest.raises(SystemExit) as ended:
        run_command(command, ask)
    assert ended.value.code == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lenspipe: ConfigError: Ray did not start on this machine")
    assert "--runner local" in line
    assert "timed out during startup. This could happen" in line


def test_a_cluster_that_does_not_answer_is_named(ray_that_does_not_start, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(ConfigError, match=r"unset RAY_ADDRESS .* \[address='head:6379'"), session.ray_session():
        pass
