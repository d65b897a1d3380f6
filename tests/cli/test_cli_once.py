# An option that holds one value is refused where it is given twice, by every command; a disk that is full is one line.

import errno
import socket
import threading
import time

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sky import write_tile

from lenspipe.cli import COMMANDS, disk_refusal, group, run_command


def commands():
    """Every command and command of a group, by its words."""
    waiting = [((name,), group.get_command(click.Context(group), name)) for name in COMMANDS]
    while waiting:
        words, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [((*words, name), inner) for name, inner in command.commands.items()]
        else:
            yield words, command


def once_only():
    for words, command in commands():
        for option in command.params:
            if isinstance(option, click.Option) and not option.multiple and not option.is_eager:
                yield pytest.param(words, option, id=" ".join((*words, option.opts[-1])))


def value_of(option):
    if option.is_flag:
        return []
    if isinstance(option.type, click.Choice):
        return [option.type.choices[0]]
    return ["1"]


def run(*arguments):
    try:
        run_command(group, list(map(str, arguments)))
    except SystemExit as done:
        return done.code


@pytest.mark.parametrize(("words", "option"), once_only())
def test_an_option_of_one_value_is_refused_when_it_is_given_twice(words, option):
    given = [option.opts[-1], *value_of(option)]
    second = [(option.secondary_opts or option.opts)[-1], *value_of(option)]
    result = CliRunner().invoke(group, [*words, *given, *second])
    assert result.exit_code == 2
    assert option.opts[-1] in result.output
    assert "is given 2 times, and may be given once" in result.output


def test_options_of_several_values_and_short_and_long_names_are_told_apart():
    from lenspipe.cli.options import Command

    @click.command(cls=Command)
    @click.option("-n", "--number", type=int)
    @click.option("--set", "assigned", multiple=True)
    @click.option("-v", "--verbose", count=True)
    def command(number, assigned, verbose):
        click.echo(f"{number} {assigned} {verbose}")

    run = CliRunner().invoke
    assert run(command, ["-n", "1", "--set", "a", "--set", "b", "-vv"]).output == "1 ('a', 'b') 2\n"
    assert "-n or --number is given 2 times" in run(command, ["-n", "1", "--number=2"]).output


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d/x"), "the disk is full.*file='/d/x'"),
        (OSError("Not enough space on disk: requested 9, available 1"), "the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/d/x"), "does not let.*Permission denied.*'/d/x'"),
        (OSError(errno.EROFS, "Read-only file system"), "does not let.*Read-only"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line_and_two(raised, said, capsys, monkeypatch):
    import re

    @click.command()
    def command():
        try:
            raise raised
        except Exception as error:  # as Ray or a library wraps it
            raise ValueError("in a worker") from error

    with pytest.raises(SystemExit) as done:
        run_command(command, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert done.value.code == 2
    assert re.search(said, line)


def test_a_bug_keeps_its_traceback():
    assert disk_refusal(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None
    assert disk_refusal(ZeroDivisionError()) is None


def test_a_scan_on_a_disk_that_fills_loses_nothing_and_is_resumed(tmp_path, monkeypatch, capsys):
    for k in range(2):
        write_tile(tmp_path / "tiles", f"t{k}", seed=k, shape=(128, 128), n_source=4)
    scan = ["scan", tmp_path / "tiles", "--runner", "local", "--model", "none", "--no-catalog", "--shard-px", 64]
    assert run(*scan, "--out", tmp_path / "whole") == 0
    write, left = pq.write_table, [1]

    def fills(table, path, **how):
        write(table, path, **how)
        left[0] -= "part-" in str(path)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as full:
        full.setattr(pq, "write_table", fills)
        assert run(*scan, "--out", tmp_path / "cut") == 2
    assert "the disk is full: make room" in capsys.readouterr().err
    assert len(list((tmp_path / "cut" / "parts").iterdir())) == 1
    assert run(*scan, "--out", tmp_path / "cut", "--resume") == 0
    for name in ("candidates", "failures"):
        one, two = (pq.read_table(tmp_path / folder / f"{name}.parquet") for folder in ("whole", "cut"))
        assert one.equals(two)


@pytest.fixture
def listener():
    """A server that takes a connection and answers with the words it is given; none means silence."""
    servers = []

    def listen(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            try:
                while True:
                    stream, _ = server.accept()
                    servers.append(stream)
                    stream.recv(100)
                    if answer:
                        stream.sendall(answer)
            except OSError:
                pass

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield listen
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("answer", "said"), [(b"HTTP/1.0 400 Bad request\r\n\r\n", "something that is not Ray"), (b"", "no answer in time")]
)
def test_a_server_that_is_not_ray_is_told_at_once(listener, monkeypatch, answer, said):
    from lenspipe.distributed import address
    from lenspipe.errors import ConfigError

    monkeypatch.setattr(address, "ANSWER_S", 0.3)
    monkeypatch.setattr(address, "_own_address", lambda: "127.0.0.1")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener(answer)}")
    with pytest.raises(ConfigError, match=f"does not answer.*{said}"):
        address.check_address()


def test_a_server_that_speaks_as_ray_does_is_left_to_ray(listener, monkeypatch):
    from lenspipe.distributed import address

    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{listener(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))}")
    address.check_address()
    for name in ("auto", "local", "anyscale://cluster", ""):
        monkeypatch.setenv("RAY_ADDRESS", name)
        address.check_address()


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "localhost:{free}", "ray://127.0.0.1:{free}", "no.invalid:1"])
@pytest.mark.parametrize("verb", ["scan", "simulate"])
def test_an_address_where_nothing_listens_is_told_before_a_folder_is_made(tmp_path, monkeypatch, capsys, address, verb):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", address.format(free=free))
    write_tile(tmp_path / "tiles", "a", shape=(64, 64), n_source=1, bands="r")
    how = {"scan": [tmp_path / "tiles", "--model", "none"], "simulate": ["--recipe", "ground-gri", "--count", 1]}[verb]
    begun = time.monotonic()
    assert run(verb, *how, "--out", tmp_path / "run") == 2
    assert time.monotonic() - begun < 15
    assert "the Ray cluster of RAY_ADDRESS does not answer" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
