import json
from pathlib import Path

from benchmarks.tutorials import TUTORIALS, digest_of

RECORD = Path(__file__).parents[2] / "benchmarks/results/tutorials.json"


def test_a_stored_notebook_shows_what_its_code_gave_and_one_that_was_not_run_shows_nothing_and_says_so():
    recorded = json.loads(RECORD.read_text())["result"]
    index = (TUTORIALS.parent / "index.md").read_text()
    for path in TUTORIALS.glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        outputs = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
        if path.stem in recorded:
            assert digest_of(notebook) == recorded[path.stem]["code"], path.stem  # run it again
            assert any(outputs)
        else:
            assert not any(outputs)
            assert f"`{path.stem}`" in index.partition("not run yet")[2].partition("\n\n")[0]
