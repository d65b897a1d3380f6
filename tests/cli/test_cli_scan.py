import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from sky import write_tile

from lenspipe.cli import COMMANDS, group, run_command


def run(*arguments):
    try:
        run_command(group, list(arguments))
    except SystemExit as done:
        return done.code


def test_help_needs_no_heavy_import_and_half_a_second():
    code = (
        "import sys, lenspipe.cli; lenspipe.cli.group.main(['--help'], standalone_mode=False); "
        "print(sorted(m for m in ('torch', 'ray', 'astropy', 'numpy', 'pyarrow') if m in sys.modules))"
    )
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - begun)
    assert done.stdout.splitlines()[-1] == "[]"
    assert min(times) < 0.5


def test_a_scan_waits_for_nothing_that_only_others_need():
    parts = "lenspipe.api.run, lenspipe.scan.run, lenspipe.scan.after.catalog, lenspipe.cli.scan_summary"
    code = f"import sys, {parts}; print(sorted({{'torch', 'ray', 'matplotlib', 'mocpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_has_help():
    for name in COMMANDS:
        result = CliRunner().invoke(group, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage:" in result.output


def test_a_scan_prints_its_totals_and_files_and_ends_with_zero(tmp_path, tiny_model, capsys):
    write_tile(tmp_path / "tiles", "a")
    out = str(tmp_path / "run")
    assert run("scan", str(tmp_path / "tiles"), "--runner", "local", "--out", out, "--model", str(tiny_model)) == 0
    shown = capsys.readouterr().out
    for part in ("sources measured", "Best candidates", "candidates.parquet", "failures.parquet", "run.json"):
        assert part in shown


def test_failures_are_shown_and_end_with_three(tmp_path, capsys):
    write_tile(tmp_path / "tiles", "a")
    write_tile(tmp_path / "tiles", "b", seed=1, BUNIT="adu")
    assert (
        run("scan", str(tmp_path / "tiles"), "--runner", "local", "--out", str(tmp_path / "run"), "--model", "none")
        == 3
    )
    assert "has no zero-point" in capsys.readouterr().out


def test_a_dry_run_shows_the_plan_and_writes_nothing(tmp_path, capsys):
    write_tile(tmp_path / "tiles", "a")
    assert run("scan", str(tmp_path / "tiles"), "--dry-run", "--shard-px", "128", "--out", str(tmp_path / "run")) == 0
    shown = capsys.readouterr().out
    assert "4 of 128 px" in shown
    assert "expected cutouts" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan"], "nothing to scan: give TILES, or --sample"),
        (["scan", "{tmp}/none*.fits"], "glob is empty"),
        (["scan", "{tmp}/none"], "no such FITS file or folder"),
        (["scan", "{tmp}/tiles", "--survey", "kidz"], "unknown survey. Did you mean 'kids'?"),
        (["scan", "{tmp}/tiles", "--config", "{tmp}/c.toml"], "c.toml:detect: unknown key 'treshold_sigma'. Did you"),
        (["scan", "{tmp}/tiles", "--model", "groundgri"], "no such model"),
        (["scan", "{tmp}/tiles", "--model", "weights.pt"], "a pickle is never loaded"),
        (["scan", "{tmp}/tiles", "--out", "{tmp}/other"], "holds no run"),
        (["scan", "{tmp}/tiles", "--resume"], "--resume needs the --out"),
        (["scan", "{tmp}/tiles", "--sample"], "--sample makes its own tiles"),
        (["scan", "{tmp}/tiles", "--shard-px", "3"], "--shard-px"),
    ],
)
def test_a_bad_request_is_one_clear_line_and_two(tmp_path, capsys, arguments, message):
    write_tile(tmp_path / "tiles", "a")
    (tmp_path / "c.toml").write_text("[detect]\ntreshold_sigma = 2.0\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    filled = [a.format(tmp=tmp_path) for a in arguments]
    if "--out" not in filled and "--resume" not in filled:
        filled += ["--out", str(tmp_path / "run")]
    assert run(*filled, *([] if filled[-1] == "--resume" else ["--runner", "local"])) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
