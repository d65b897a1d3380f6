"""Every command and every settings file that a page shows is one that lenspipe takes."""

import re
import tomllib
from collections import Counter

import click
import pytest
from snippets import LANGUAGES, pages, parse, program, snippets, text_of, words_of

from lenspipe.cli.options import assigned, for_survey
from lenspipe.cli.settings import KINDS, settings_class
from lenspipe.toml import put_over

NOT_RUN = Counter(
    {
        "an hour of training": 5,
        "names that stand for yours": 10,
        "a package of one's own; tests/own installs it": 8,
        "survey data": 10,
        "a cluster": 6,
        "installs lenspipe; the gate runs it": 1,
        "Ray": 1,
        "hours of training": 2,
        "an object store": 1,
    }
)
"""Blocks that no test runs, by what they need: one more is a decision."""

OWN = {f"docs/own/{name}.md" for name in ("detector", "objective", "reader")}
"""Pages whose commands name what their own packages add: `tests/own` installs those and runs them."""

SETTINGS = {"scan": "scan", "train": "train", "completeness": "completeness", "finder": "finder"}
"""Kind of settings that `--set` of a command is about."""


def shown(language):
    return [snippet for page in pages() for snippet in snippets(page) if snippet.language == language]


def where(snippet):
    return f"{snippet.page}:{snippet.line}"


def test_a_block_says_what_it_is_and_what_cannot_be_run_is_counted():
    found = [snippet for page in pages() for snippet in snippets(page)]
    assert {snippet.language for snippet in found} <= LANGUAGES
    fences = sum(len(re.findall(r"^\s*```", text_of(page), re.M)) for page in pages())
    assert fences == 2 * len(found)
    assert Counter(snippet.needs for snippet in found if snippet.needs) == NOT_RUN


@pytest.mark.parametrize("snippet", [one for one in shown("sh") if one.page not in OWN], ids=where)
def test_a_command_is_one_that_its_own_parser_takes(snippet):
    for words in words_of(snippet):
        if (called := program(words)) is None:
            continue
        command, args = called
        try:
            values = parse(command, args)
        except click.ClickException as error:
            pytest.fail(f"{' '.join(words)}: {error.format_message()}")
        if kind := SETTINGS.get(words[1]) if words[0] == "lenspipe" else None:
            own, layout = for_survey(values.get("assignments", ()))
            put_over(settings_class(kind)(), assigned(own), origin=where(snippet))
            assert not layout or words[1] in ("scan", "finder")


@pytest.mark.parametrize("snippet", shown("toml"), ids=where)
def test_a_settings_file_is_one_that_lenspipe_takes(snippet):
    table = tomllib.loads(snippet.text)
    if table.keys() in ({"project"}, {"viewers"}):
        return
    refused = {}
    for kind in KINDS:
        try:
            settings_class(kind).model_validate(table)
        except ValueError as error:
            refused[kind] = str(error)
    assert len(refused) < len(KINDS), refused


def test_a_command_in_the_text_has_the_options_that_it_is_given():
    for page in pages():
        for said in re.findall(r"`(lenspipe [a-z][^`]*)`", re.sub(r"```.*?```", "", text_of(page), flags=re.S)):
            command, args = program(re.split(r"\s+", said))
            known = {name for p in command.params for name in [*p.opts, *p.secondary_opts]} | {"--help"}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", " ".join(args))) <= known, (page, said)


@pytest.mark.parametrize(
    "line",
    [
        "lenspipe scan tiles --surveys kids",
        "lenspipe train --data s",
        "lenspipe train --out m --task fnid",
        "lenspipe gallery a b",
    ],
)
def test_a_command_that_lenspipe_would_refuse_is_refused(line):
    with pytest.raises(click.ClickException):
        parse(*program(["lenspipe", *line.split()]))
