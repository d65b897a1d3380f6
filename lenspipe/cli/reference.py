"""
The pages of ``docs/reference``, written by the code that they describe: ``python -m lenspipe.cli.reference``.

`tests/cli/test_cli_settings.py` fails where a page differs from what this writes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow as pa

from lenspipe import api
from lenspipe.cli import COMMANDS, group
from lenspipe.cli.settings import KINDS, settings_class
from lenspipe.settings.text import reference_page

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
ELSEWHERE = {"sweep": ("base",)}
"""Tables of a settings file that another page has."""
NOTES = {
    "sweep": "`[base]` takes every key of [a training](settings-train.md), such as `[base.optim]`.",
    "recipe": "The shipped recipes are lists of these keys: `lenspipe/simulate/recipes/`.",
    "survey": "The shipped layouts are examples to copy: `lenspipe/survey/layouts/`. On the command line their keys "
    "begin with `survey.`: `--set survey.zero_point.ab=25`.",
}
GENERATED = "This page is generated: `python -m lenspipe.cli.reference`."


_OTHERS = ("- [tables](tables.md): every column with its unit and UCD", "- [Python](api.md): `import lenspipe as lp`")


def pages() -> dict[str, str]:
    """Text of each page by file name."""
    found = {f"settings-{kind}.md": _settings_page(kind) for kind in KINDS}
    found["commands.md"] = _commands_page()
    found["tables.md"] = _tables_page()
    found["api.md"] = _api_page()
    found["index.md"] = _index()
    return found


def _settings_page(kind: str) -> str:
    lead = (
        f"Keys of the TOML file of `{KINDS[kind][2]}`, and of `--set KEY=VALUE`. `lenspipe settings {kind}` prints "
        f"them as a file to edit. A key that is not set is left out of the file, or `null` after `--set`. {GENERATED}"
    )
    if kind in NOTES:
        lead += f"\n\n{NOTES[kind]}"
    return reference_page(settings_class(kind), title=f"Settings: {kind}", lead=lead, leave_out=ELSEWHERE.get(kind, ()))


def _commands_page() -> str:
    parts = ["# Commands", f"`lenspipe COMMAND --help` says the same. {GENERATED}"]
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        parts += _command_parts(command, f"lenspipe {name}")
    return "\n\n".join(parts) + "\n"


def _command_parts(command: click.Command, title: str) -> Iterator[str]:
    words = [p.metavar or (p.name or "").upper() for p in command.params if isinstance(p, click.Argument)]
    yield f"## `{' '.join([title, *words])}`"
    yield inspect.cleandoc(command.help or "")
    options = [p for p in command.params if isinstance(p, click.Option)]
    if options:
        yield "\n".join(["| option | meaning |", "|---|---|", *map(_option_row, options)])
    for name, below in getattr(command, "commands", {}).items():
        yield from _command_parts(below, f"{title} {name}")


def _option_row(option: click.Option) -> str:
    names = " / ".join([*option.opts, *option.secondary_opts])
    kind = option.type
    values = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else option.metavar or kind.name.upper()
    values = "" if option.is_flag else " " + values.split(" ")[0].replace("|", "\\|")
    meaning = (option.help or "").replace("|", "\\|")
    if option.show_default and not option.is_flag:
        meaning = f"{meaning} [default: {option.default}]".strip()
    facts = " (required)" if option.required else " (may be repeated)" if option.multiple else ""
    return f"| `{names}{values}` | {meaning}{facts} |"


def _schemas() -> dict[str, tuple[str, pa.Schema]]:
    """By file: what a row is, and the columns; those of a band for r."""
    from lenspipe.catalog.columns import CONTAMINANT, catalog_schema
    from lenspipe.catalog.grades import GRADES
    from lenspipe.catalog.match import FATES
    from lenspipe.completeness.table import injections_schema
    from lenspipe.evaluate.judges.find import SCORES
    from lenspipe.learn.sweep.trials import SCHEMA as TRIALS
    from lenspipe.schema import FAILURES, PSF, anomaly_fields, candidates_schema, ood_field, shards_schema
    from lenspipe.stamps.spec import ImageSpec, stamp_schema

    sometimes = [ood_field(), *anomaly_fields()]
    return {
        "RUN/candidates.parquet": (
            "one row per candidate; `ood_quantile` and the columns of `--anomaly` where a model gives them",
            candidates_schema(("r",), sometimes),
        ),
        "RUN/shards.parquet": ("one row per shard", shards_schema(("r",))),
        "RUN/psf.parquet": ("one row per shard and band", PSF),
        "RUN/failures.parquet": ("one row for each thing that was not searched", FAILURES),
        "CATALOGUE/candidates.parquet": (
            "one row per object, in the HATS tree and as FITS too; `contaminant` columns with a list of them",
            pa.schema([*catalog_schema(("r",), sometimes), *CONTAMINANT]),
        ),
        "CATALOGUE/known_lenses.parquet": ("one row per known lens inside the footprint", FATES),
        "grades.parquet": ("one row per look, of `lenspipe grades`", GRADES),
        "STAMPS/*.parquet": (
            "one row per labelled stamp, and whatever columns its maker adds",
            stamp_schema({"image": ImageSpec(("g", "r", "i"), 61, 0.2)}),
        ),
        "REPORT/scores.parquet": ("one row per model and stamp, of `lenspipe evaluate` for finders", SCORES),
        "SWEEP/trials.parquet": ("one row per trial", TRIALS),
        "SELECTION/injections.parquet": ("one row per painted lens", injections_schema(("r",))),
    }


def _tables_page() -> str:
    parts = [
        "# Tables",
        "What lenspipe writes, column by column; those of a band are shown for r. Units (VOUnits), UCDs and "
        f"descriptions are in the Parquet schema too: `pq.read_schema(file).field(name).metadata`. {GENERATED}",
    ]
    for file, (what, schema) in _schemas().items():
        rows = ["| column | type | unit | UCD | meaning |", "|---|---|---|---|---|"]
        for one in schema:
            facts = {key.decode(): value.decode() for key, value in (one.metadata or {}).items()}
            said = [facts.get(key, "").replace("|", "\\|") for key in ("unit", "ucd", "description")]
            rows.append(f"| `{one.name}` | {_kind(one.type)} | " + " | ".join(said) + " |")
        parts += [f"## `{file}`", f"{what[0].upper()}{what[1:]}.", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _kind(of: pa.DataType) -> str:
    """A type in short: what a list holds and how many."""
    if pa.types.is_fixed_size_list(of):
        return f"{of.value_type}[{of.list_size}]"
    return f"{of.value_type}[]" if pa.types.is_list(of) else str(of)


def _api_page() -> str:
    parts = ["# Python", f"What `import lenspipe as lp` gives; [the guide](../python.md) shows it at work. {GENERATED}"]
    for name in sorted(set(api.__all__), key=str.lower):
        kind = "autoclass" if inspect.isclass(getattr(api, name)) else "autofunction"
        members = "   :members:\n" if kind == "autoclass" else ""
        parts.append(f"## `{name}`\n\n```{{eval-rst}}\n.. {kind}:: lenspipe.{name}\n{members}```")
    return "\n\n".join(parts) + "\n"


def _index() -> str:
    lines = ["# Reference", "Generated from the code, which is what counts.", "- [commands](commands.md)"]
    rows = [f"- [settings: {kind}](settings-{kind}.md), for `{use}`" for kind, (_, _, use) in KINDS.items()]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join([lines[2], *rows, *_OTHERS]) + "\n"


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        click.echo(FOLDER / name)


if __name__ == "__main__":
    main()
