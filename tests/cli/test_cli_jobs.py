"""Scripts for `ray job submit` are the commands."""

import runpy
import sys
from pathlib import Path

import pytest

from lenspipe.cli import main

JOBS = Path(__file__).resolve().parents[2] / "jobs"
COMMANDS = {
    "scan_survey": "scan",
    "simulate_lenses": "simulate",
    "train_classifier": "train",
    "sweep_models": "sweep",
    "evaluate_model": "evaluate",
}
TO_RAY = "scan_survey", "simulate_lenses", "train_classifier"


@pytest.mark.parametrize("job", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "--no-such-option"])
def test_a_job_says_and_ends_as_its_command_does(job, option, monkeypatch, capsys):
    said = []
    for argv in ([f"{job}.py", option], ["lenspipe", COMMANDS[job], option]):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            main() if argv[0] == "lenspipe" else runpy.run_path(str(JOBS / argv[0]), run_name="__main__")
        said.append((ended.value.code, *capsys.readouterr()))
    (code, out, err), of_command = said
    if job in TO_RAY:
        assert "[default: ray]" in out or option != "--help"  # what is sent to a cluster runs on it
        out = out.replace("[default: ray]", "[default: auto]")
    assert (code, " ".join(out.split()), err) == (of_command[0], " ".join(of_command[1].split()), of_command[2])
    assert said[0][0] == (0 if option == "--help" else 2)
