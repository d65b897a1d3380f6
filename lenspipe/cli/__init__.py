"""The `lenspipe` command. Each subcommand is a file here with one click command named ``command``."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
from typing import Any, NoReturn

import click

from lenspipe import __version__
from lenspipe.errors import LenspipeError, StoreError, did_you_mean
from lenspipe.store.place import shown

EXIT_DONE, EXIT_BAD_REQUEST, EXIT_WITH_FAILURES, EXIT_INTERRUPTED = 0, 2, 3, 130
INTERRUPTED = (
    "\nlenspipe: interrupted. What was written as a whole is kept; give the same command again, with --resume where "
    "there is one, and it takes up from there."
)

COMMANDS = {
    "scan": "Scan survey tiles into a candidate catalogue.",
    "catalog": "Write the catalogue of a run: HATS, VOParquet, footprint, known lenses.",
    "gallery": "Write the page to look at a catalogue's candidates and grade them.",
    "similar": "Rank the candidates of a catalogue by likeness to one of them, or to a stamp.",
    "explain": "Scan and score one candidate again and compare with what is stored.",
    "grades": "Bring grades back from the page: agreement, mean grades, labels.",
    "completeness": "Measure what a finder misses: paint lenses into a run's pixels and search them.",
    "simulate": "Simulate labelled stamps of lenses and of what looks like them.",
    "train": "Train a network on a data set of labelled stamps.",
    "generate": "Make labelled stamps with a trained generator.",
    "sweep": "Train and compare many networks or settings.",
    "stamps": "Describe, validate, convert, cut, merge or fit data sets of labelled stamps.",
    "denoise": "Denoise whole tiles, window by window, without seams.",
    "finder": "Teach a finder by a survey's own pixels and its people's grades.",
    "shots": "Make a finder of a handful of graded examples, without training.",
    "evaluate": "Judge models on a data set of labelled stamps.",
    "calibrate": "Fit a finder's map from score to probability on held-out stamps.",
    "export": "Write a model in a form that other programs run (ONNX).",
    "settings": "Print a commented settings file with every key.",
    "models": "List the model families and the models that ship with the package.",
}


class LazyGroup(click.Group):
    """Subcommands are imported when called: `lenspipe --help` must not wait for torch or Ray."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"lenspipe.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS) or "`lenspipe --help` lists them."
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lenspipe")
def group() -> None:
    """Find strong gravitational lenses in whole imaging surveys."""


def run_command(
    command: click.Command, args: list[str] | None = None, defaults: dict[str, Any] | None = None
) -> NoReturn:
    """
    Run a click command as a process: deliberate errors become one line on stderr and exit code 2.

    So does a disk that is full or may not be written to. The commands return their exit code (0 done, 3 done with
    failures). A bug keeps its traceback. ``defaults`` take the place of the options' own, by subcommand and name.
    """
    try:
        code = command.main(args=args, prog_name="lenspipe", standalone_mode=False, default_map=defaults)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_BAD_REQUEST)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo(INTERRUPTED, err=True)
        sys.exit(EXIT_INTERRUPTED)
    except LenspipeError as error:
        click.echo(f"lenspipe: {type(error).__name__}: {printable(shown(str(error)))}", err=True)
        sys.exit(EXIT_BAD_REQUEST)
    except Exception as error:
        refusal = disk_refusal(error)
        if refusal is None:
            raise
        click.echo(f"lenspipe: {shown(refusal)}", err=True)
        sys.exit(EXIT_BAD_REQUEST)
    sys.exit(code or EXIT_DONE)


def printable(text: str) -> str:
    """
    Text without characters that command a terminal, for words that others wrote.

    Examples
    --------
    >>> printable("a" + chr(27) + "[2Jb")
    'a\ufffd[2Jb'
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)


DISK_FULL = "No space left on device", "Disk quota exceeded", "Not enough space on disk"
OF_THE_DISK = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ESTALE),
}


_OF_A_TABLE = re.compile(r"CRC checksum|Parquet|parquet|[Tt]hrift|Corrupt|Unexpected end of stream|decompress")
"""In what Arrow says of a page that is damaged."""


def disk_refusal(error: BaseException) -> str | None:
    """A line for an error of a disk or store that takes or gives nothing, wherever it was raised; None for others."""
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        seen.append(at)
        if isinstance(at, StoreError):  # in a worker of Ray
            return str(at)
        code, text = getattr(at, "errno", None), str(at)
        name = getattr(at, "filename", None)
        where = f" [file={str(name)!r}]" if name else ""
        if code in (errno.ENOSPC, errno.EDQUOT) or any(words in text for words in DISK_FULL):
            return (
                "the disk is full: make room and give the same command again, with --resume where there is one; what "
                f"was written as a whole is kept{where}"
            )
        if code is None and type(at).__module__.startswith(("pyarrow", "builtins")) and _OF_A_TABLE.search(text):
            return (
                "a table is damaged; take it from a copy, or have it written again by the command that made it "
                f"({text.strip().partition(chr(10))[0][:200]})"
            )
        if isinstance(at, OSError) and code in OF_THE_DISK:
            return f"the disk does not let this command read or write there ({os.strerror(code)}){where}"
        at = getattr(at, "cause", None) or at.__cause__ or at.__context__  # Ray keeps what a worker raised as `cause`
    return None


def main(*command: str, runner: str | None = None) -> NoReturn:
    """
    Entry point of the `lenspipe` script, and with a command's name of its script in ``jobs/``.

    There ``runner`` is the default of ``--runner``: a job that is sent to a cluster runs on it.
    """
    defaults = {name: {"runner": runner} for name in command} if runner else None
    run_command(group, [*command, *sys.argv[1:]], defaults)
