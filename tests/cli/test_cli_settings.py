import json
import re
import tomllib

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from lenspipe.cli import COMMANDS, group
from lenspipe.cli.options import settings_of
from lenspipe.cli.reference import FOLDER, pages
from lenspipe.cli.settings import KINDS, settings_class
from lenspipe.errors import ConfigError
from lenspipe.learn.settings import TrainSettings
from lenspipe.scan.config import ScanConfig
from lenspipe.settings.keys import sections_of
from lenspipe.settings.text import commented_toml
from lenspipe.simulate.recipe import Recipe, read_recipe
from lenspipe.survey.layout import SurveyLayout, read_layout
from lenspipe.toml import put_over
from tests.sky import write_tile

EXAMPLES = {
    "scan": {},
    "train": {},
    "catalog": {},
    "sweep": {"model": [{"family": "small-cnn"}]},
    "recipe": read_recipe("substructure-1").model_dump(),
    "survey": read_layout("kids").model_dump(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_parses_back_to_the_defaults(kind):
    table = settings_class(kind)
    result = CliRunner().invoke(group, ["settings", kind])
    assert result.exit_code == 0
    needed = {name: EXAMPLES[kind][name] for name, field in table.model_fields.items() if field.is_required()}
    if kind == "recipe":
        needed["substructure"] = EXAMPLES[kind]["substructure"]
    assert table.model_validate(tomllib.loads(result.output) | needed) == table.model_validate(needed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_every_table_is_printed_with_its_meaning(kind):
    text, keys = commented_toml(settings_class(kind)), []
    for section in sections_of(settings_class(kind)):
        assert not section.header or section.header in text
        assert section.meaning, section.header
        for key in section.keys:
            assert len(key.meaning) > 5, (section.header, key.name)
            assert key.values != "any value", (section.header, key.name)
            assert re.search(rf"^#?{key.name} =", text, re.MULTILINE), key.name
            keys.append(key.name)
    assert sorted(keys) == sorted(leaves(settings_class(kind)))


def leaves(table: type[BaseModel]) -> list[str]:
    """Names of fields that are not tables, found by another way: through the JSON schema."""
    schema = table.model_json_schema()

    def walk(node: dict) -> list[str]:
        found = []
        for name, field in node.get("properties", {}).items():
            inner = [field, *field.get("anyOf", []), field.get("items", {}), field.get("additionalProperties", {})]
            refs = [i["$ref"] for i in inner if isinstance(i, dict) and "$ref" in i]
            found += walk(schema["$defs"][refs[0].rsplit("/", 1)[-1]]) if refs else [name]
        return found

    return walk(schema)


def test_tables_that_are_commented_out_hold_their_defaults_too():
    lines = [re.sub(r"^#(?=[a-z\[])", "", line) for line in commented_toml(TrainSettings).splitlines()]
    lines = ['path = "x"' if line == "path =" else line for line in lines]  # required where the table is there
    parsed = tomllib.loads("\n".join(line for line in lines if not line.endswith(" =")))
    assert TrainSettings.model_validate(parsed) == TrainSettings(
        augment={}, denoise={}, embed={}, cluster={}, generate={}, deflect={}, adapt={}, data=[{"path": "x"}]
    )


def test_numbers_have_their_unit_and_their_bounds():
    keys = {k.name: k for section in sections_of(ScanConfig) for k in section.keys}
    assert keys["core_px"].values == "whole number, pixels, from 64 to 16384"
    assert keys["threshold_sigma"].values == "number, sigma, above 0"
    assert keys["detector"].values == '"sep" | "photutils"'
    assert keys["mag_max"].values == "number, mag"
    assert keys["prior"].default is None and not keys["prior"].required
    recipe = {k.name: k for section in sections_of(Recipe) for k in section.keys}
    assert recipe["depth_mag"].values == "2 numbers, mag"


def test_the_reference_pages_are_what_the_code_writes():
    """Where this fails, run `python -m lenspipe.cli.reference`."""
    assert {path.name for path in FOLDER.glob("*.md")} == set(pages())
    for name, text in pages().items():
        assert (FOLDER / name).read_text() == text, name


def test_every_command_that_takes_a_settings_file_takes_set():
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        names = {option for param in command.params for option in param.opts}
        if names & {"--config", "--recipe", "--space"} or ("--survey" in names and name != "simulate"):
            assert "--set" in names, name


def test_a_file_then_set_then_the_options_of_the_command(tmp_path):
    file = tmp_path / "scan.toml"
    file.write_text("[detect]\nthreshold_sigma = 2.0\nmin_area_px = 7\n[shard]\ncore_px = 512\n")
    words = ["detect.threshold_sigma=3", "shard.core_px=256", "select.mag_max=null", "select.colour={g-r=[0.1, 1]}"]
    config = settings_of(ScanConfig, str(file), words, {"shard.core_px": 128, "zero_point_ab": None})
    assert (config.detect.threshold_sigma, config.detect.min_area_px, config.shard.core_px) == (3.0, 7, 128)
    assert config.select.mag_max is None
    assert config.select.colour == {"g-r": (0.1, 1.0)}
    assert settings_of(ScanConfig, str(file), ["detect.min_area_px=8", "detect.min_area_px=9"]).detect.min_area_px == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("detect.treshold_sigma=2", r"--set:detect: unknown key 'treshold_sigma'. Did you mean 'threshold_sigma'\?"),
        ("detct.threshold_sigma=2", r"--set: unknown key 'detct'. Did you mean 'detect'\?"),
        ("detect.threshold_sigma=high", "--set:detect: threshold_sigma = 'high': Input should be a valid number"),
        ("detect.threshold_sigma.x=1", "--set: 'threshold_sigma' is a value, not a table"),
        ("detect.threshold_sigma", r"--set needs KEY=VALUE"),
        ("substructure.models=[1", "--set: the value is not TOML"),
        ("shard.core_px=32", "core_px = 32: Input should be greater than or equal to 64"),
    ],
)
def test_what_set_refuses_is_named(words, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(ScanConfig, None, [words])


def test_tables_that_are_not_there_are_made_and_those_of_a_list_have_numbers():
    assert (
        settings_of(TrainSettings, None, ["augment.shift=0.3"]).augment == TrainSettings(augment={"shift": 0.3}).augment
    )
    recipe = read_recipe("ground-gri", changes={"image.0.size_px": 33, "survey.0.band.r.depth_mag": [25.0, 0.1]})
    assert (recipe.image[0].size_px, recipe.survey[0].band["r"].depth_mag) == (33, (25.0, 0.1))
    assert recipe.survey[0].band["g"] == read_recipe("ground-gri").survey[0].band["g"]
    with pytest.raises(ConfigError, match="give the number of one of 1 tables, from 0, not '1'"):
        read_recipe("ground-gri", changes={"image.1.size_px": 33})
    with pytest.raises(ConfigError, match=r"^--set:image.0: unknown key 'size'. Did you mean 'size_px'\?$"):
        read_recipe("ground-gri", changes={"image.0.size": 33})


@pytest.mark.parametrize("table", [ScanConfig(), TrainSettings(), read_recipe("challenge2"), read_layout("hsc")])
def test_nothing_put_over_a_table_leaves_it_as_it_is(table):
    assert put_over(table, {}, origin="test") == table


def test_the_settings_and_the_layout_of_a_scan_are_set_from_the_command_line(tmp_path):
    write_tile(tmp_path, "a", bands="r", shape=(200, 300))
    words = ["scan", str(tmp_path / "a_r.fits"), "--model", "none", "--runner", "local", "--out", str(tmp_path / "run")]
    words += ["--set", "shard.core_px=128", "--set", "survey.psf_fwhm_arcsec.r=0.7", "--no-catalog"]
    result = CliRunner().invoke(group, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    request = json.loads((tmp_path / "run" / "run.json").read_text())["request"]
    assert request["config"]["shard"]["core_px"] == 128
    assert request["survey"]["psf_fwhm_arcsec"] == {"r": 0.7}
    assert SurveyLayout.model_validate(request["survey"]).name == "generic"


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "x_r.fits", "--set", "survey.zero_pont.ab=25"],
        ["denoise", "x_r.fits", "--model", "denoise-ground", "--out", "o", "--set", "survey.zero_pont.ab=25"],
        ["train", "--data", "d", "--model", "small-cnn", "--out", "o", "--set", "optim.epoch=1"],
        ["simulate", "--recipe", "ground-gri", "--count", "1", "--out", "o", "--set", "min_arc_snrs=1"],
        ["catalog", "run", "--out", "o", "--set", "radius_arcsek=1"],
    ],
)
def test_a_typo_in_set_names_the_nearest_key_in_every_command(words):
    result = CliRunner().invoke(group, words)
    assert isinstance(result.exception, ConfigError)
    assert "Did you mean" in str(result.exception)
