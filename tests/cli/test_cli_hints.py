import pytest

from lenspipe.cli import LazyGroup, group, run_command


def run(*arguments):
    try:
        run_command(group, list(arguments))
    except SystemExit as done:
        return done.code


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["scna"], "Did you mean 'scan'?"),
        (
            ["simulate", "--recipe", "substructure1", "--count", "1", "--out", "{tmp}/s"],
            "Did you mean 'substructure-1'?",
        ),
        (["stamps", "readers", "euclid"], "Did you mean 'euclid-q1'?"),
    ],
)
def test_a_name_that_is_nearly_right_is_put_right(arguments, hint, tmp_path, capsys):
    assert run(*(word.format(tmp=tmp_path) for word in arguments)) == 2
    assert hint in capsys.readouterr().err


def test_one_reader_is_shown_alone(capsys):
    assert run("stamps", "readers", "npz") == 0
    shown = capsys.readouterr().out
    assert "npz" in shown and "bologna" not in shown


def test_an_interrupted_command_says_what_is_kept_and_ends_with_130(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LazyGroup, "invoke", interrupted)
    assert run("models") == 130
    assert "--resume" in capsys.readouterr().err
