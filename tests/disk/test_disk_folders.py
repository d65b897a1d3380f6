import concurrent.futures
import errno
import os

import pytest

from lenspipe import disk as module
from lenspipe.disk import locked, locked_beside, new_folder, put_back, replaced_folder
from lenspipe.errors import ConfigError
from lenspipe.rundir import open_run


def ours(path):
    return path == "what"


@pytest.fixture
def old(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "what").write_text("old")
    return tmp_path / "cat"


def write(folder, text="new", *, replace=True):
    with replaced_folder(folder, replace=replace, ours=ours) as new:
        (new / "what").write_text(text)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def elsewhere(work):
    """What another process would get: a lock is held by a thread's context, and this one has another."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_disk_that_fails_between_the_two_renames_leaves_the_old_folder(old, tmp_path, monkeypatch):
    rename = os.replace

    def fails(source, target):
        if str(source).endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(module.os, "replace", fails)
    with pytest.raises(OSError, match="Input"):
        write(old)
    assert (old / "what").read_text() == "old"
    assert names(tmp_path) == ["cat"]


def test_a_folder_set_aside_comes_back_and_an_older_one_beside_the_new_goes(old, tmp_path):
    old.rename(tmp_path / ".cat.old")
    put_back(old, ours=ours)
    assert (old / "what").read_text() == "old"
    (tmp_path / ".cat.old").mkdir()
    put_back(old, ours=ours)
    assert names(tmp_path) == ["cat"]


def test_a_folder_set_aside_that_holds_a_users_file_is_not_deleted(old, tmp_path):
    (tmp_path / ".cat.old").mkdir()
    (tmp_path / ".cat.old" / "thesis").write_text("x")
    with pytest.raises(ConfigError, match=r"move that away.*file='thesis'"):
        write(old)
    assert (tmp_path / ".cat.old" / "thesis").exists()


def test_a_link_is_not_followed_when_a_folder_is_replaced(old, tmp_path):
    (tmp_path / "link").symlink_to(old)
    with pytest.raises(ConfigError, match="a link is in the way"):
        write(tmp_path / "link")
    assert (old / "what").read_text() == "old"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("place", ["grades.csv", "sub/grades.csv", "link"])
def test_a_folder_that_holds_what_is_not_ours_is_not_replaced(old, tmp_path, place):
    (old / "sub").mkdir()
    if place == "link":
        (old / place).symlink_to(tmp_path)
    else:
        (old / place).write_text("A")
    with pytest.raises(ConfigError, match=rf"did not write; move that away.*file='{place}'"):
        write(old)
    assert (old / place).exists()
    assert (old / "what").read_text() == "old"
    assert names(tmp_path) == ["cat"]


def test_a_folder_that_exists_is_not_replaced_unless_told(old):
    with pytest.raises(ConfigError, match="exists"):
        write(old, replace=False)
    assert (old / "what").read_text() == "old"


def test_a_second_writer_is_refused_and_the_lock_goes_with_the_first(old, tmp_path):
    with replaced_folder(old, replace=True, ours=ours) as new:
        with pytest.raises(ConfigError, match="another process is working"):
            elsewhere(lambda: write(old, "second"))
        (new / "what").write_text("first")
    assert (old / "what").read_text() == "first"
    assert names(tmp_path) == ["cat"]
    elsewhere(lambda: write(old, "second"))
    assert (old / "what").read_text() == "second"


def test_the_next_writer_removes_the_scratch_of_a_killed_one_and_nothing_else(tmp_path):
    for name in (".out.0123abcd.tmp", ".other.0123abcd.tmp", ".mine.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text("x")
    with new_folder(tmp_path / "out") as new:
        (new / "data").write_text("y")
    assert names(tmp_path) == [".mine.tmp", ".other.0123abcd.tmp", "out"]


def test_scratch_that_is_a_link_goes_and_what_it_points_to_stays(tmp_path, old):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".a.0123abcd.tmp").symlink_to(old)
    with locked(tmp_path / "run"):
        assert names(tmp_path / "run") == [".lock"]
    assert (old / "what").read_text() == "old"


def test_a_run_leaves_a_users_hidden_files_where_they_are(tmp_path):
    (tmp_path / ".mine.tmp").write_text("x")
    (tmp_path / ".a.parquet.0123abcd.tmp").write_text("cut off")
    with open_run(tmp_path, {}, resume=False, command="--out"):
        pass
    assert names(tmp_path) == [".mine.tmp", "request.json"]


def test_a_lock_that_is_a_link_is_refused_and_its_target_is_not_truncated(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "thesis").write_text("x")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis")
    with (
        pytest.raises(ConfigError, match="a link is in the way"),
        open_run(tmp_path / "run", {}, resume=False, command="--out"),
    ):
        pass
    assert (tmp_path / "thesis").read_text() == "x"


def test_a_users_file_of_the_name_of_the_lock_keeps_its_text(tmp_path):
    (tmp_path / ".lock").write_text("of another program")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "of another program"


def test_a_disk_without_room_for_a_lock_ends_the_command_and_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"), locked_beside(tmp_path / "cat"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_may_be_taken_again_by_who_holds_it(tmp_path):
    with locked_beside(tmp_path / "cat"), locked_beside(tmp_path / "cat"):
        pass
    assert names(tmp_path) == []
