"""Credentials, names and cells of others: refused, or words and nothing else."""

import csv
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import lenspipe.catalog.gallery
from lenspipe.catalog.grades import read_grades
from lenspipe.cli.grades import _print
from lenspipe.cli.scan import command
from lenspipe.distributed.session import prepare_environment
from lenspipe.errors import ConfigError
from lenspipe.store.urls import demand_no_secrets
from lenspipe.tables import plain_cell, safe_cell

NAMES = ("__proto__", "constructor", "[/]", "[bold]", "=1+1", "@SUM(A1)", "-x", "+x", "'=a", "\tx", "<b>")


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@example.org/a_r.fits",
        "s3://key:hunter2@bucket/a_r.fits",
        "simplecache::ftp://me:hunter2@example.org/a_r.fits",
        "https://example.org/a_r.fits?sv=2024&sig=hunter2",
        "https://example.org/a_r.fits?X-Amz-Signature=hunter2",
        "https://example.org/a_r.fits?access_token=hunter2",
        "https://hunter2@example.org/a_r.fits",
        "https://example.org/a_r.fits?id=5&key=hunter2",
        "http://example.org/a_r.fits?client%5Fsecret=hunter2",
        "https://example.org/a_r.fits?auth=hunter2",
    ],
)
def test_a_url_with_credentials_is_refused_and_written_nowhere(tmp_path, url):
    arguments = [url, "--runner", "local", "--model", "none", "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(found.exception, ConfigError)
    assert "hunter2" not in str(found.exception) + found.output
    manifest = tmp_path / "tiles.csv"
    manifest.write_text(f"tile,band,image\na,r,{url}\n")
    found = CliRunner().invoke(command, [str(manifest), *arguments[1:]], standalone_mode=False)
    assert isinstance(found.exception, ConfigError) and "hunter2" not in str(found.exception) + found.output
    assert list(tmp_path.iterdir()) == [manifest]


def test_a_url_without_credentials_is_taken():
    for url in (
        "abfs://box@account.dfs.core.windows.net/a.fits",
        "sftp://me@host/a.fits",
        "https://x.org/a@b?id=5&ra=1",
        "s3://box/a?key=5",
    ):
        demand_no_secrets(url)


def test_cells_that_begin_a_formula_come_back_as_they_were():
    assert [plain_cell(safe_cell(name)) for name in NAMES] == list(NAMES)
    assert not any(safe_cell(name)[0] in "=+-@\t\r" for name in NAMES)
    assert safe_cell("-5.25e-3") == "-5.25e-3"


def test_graders_of_any_name_are_read_and_printed(tmp_path, capsys):
    file = tmp_path / "g.csv"
    with file.open("w", newline="") as stream:
        rows = [("run", "c", safe_cell(name), "A") for name in NAMES]
        csv.writer(stream).writerows([("run_id", "candidate_id", "grader", "grade"), *rows])
    assert set(read_grades([str(file)])["grader"].to_pylist()) == set(NAMES)
    _print(
        [{"first": a, "second": b, "n": 1, "equal": 1.0, "kappa": None} for a, b in zip(NAMES, NAMES, strict=True)], []
    )
    printed = capsys.readouterr().out
    assert all(name.strip() in printed for name in NAMES)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_takes_any_name_for_a_name():
    script = Path(lenspipe.catalog.gallery.__file__).parent / "page" / "grades.js"
    program = f"""
        globalThis.window = globalThis; const kept = {{}};
        globalThis.localStorage = {{getItem: k => kept[k], setItem: (k, v) => {{ kept[k] = v; }}}};
        require("vm").runInThisContext(require("fs").readFileSync({json.dumps(str(script))}, "utf8"));
        const names = {json.dumps(NAMES)}, grades = new LENSPIPE.Grades("k");
        for (const name of names) {{ grades.grader = name; grades.set("run/c", "A"); }}
        const csv = grades.toCsv(() => ({{dec: -5.25}}));
        const again = new LENSPIPE.Grades("k"), other = new LENSPIPE.Grades("l");
        const taken = other.fromCsv(csv);
        let refused = "";
        try {{ other.fromCsv("run_id,candidate_id,grader,grade\\nr,c,,A\\n"); }}
        catch (error) {{ refused = error.message; }}
        console.log(JSON.stringify({{csv, taken, refused, again: again.all("run/c"), other: other.all("run/c"),
                                    plain: ({{}}).polluted === undefined}}));
    """
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for key in ("again", "other"):
        assert {row["grader"] for row in found[key]} == set(NAMES)
    assert found["taken"] == len(NAMES)
    assert "no grader" in found["refused"]
    cells = [cell for row in csv.reader(found["csv"].splitlines()) for cell in row]
    assert {cell for cell in cells if cell[:1] in tuple("=+-@\t")} == {"-5.25"}


@pytest.mark.parametrize("home", ["writable", "not there"])
def test_a_local_ray_has_a_token_that_nobody_else_can_read(tmp_path, monkeypatch, home):
    for name in [name for name in os.environ if name.startswith("RAY_AUTH") or name == "RAY_ADDRESS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path if home == "writable" else tmp_path / "none"))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    prepare_environment()
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert (stat.S_IMODE(token.stat().st_mode), stat.S_IMODE(token.parent.stat().st_mode)) == (0o600, 0o700)
    assert len(token.read_text()) == 64 and not (tmp_path / ".ray").exists()
    prepare_environment()
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(token)
