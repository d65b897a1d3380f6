import errno
import os

import pytest

from lenspipe.catalog import folder as module
from lenspipe.catalog.folder import put_back, replaced_folder
from lenspipe.errors import ConfigError


@pytest.fixture
def old(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "what").write_text("old")
    return tmp_path / "cat"


def write(folder, text="new", **options):
    with replaced_folder(folder, **options) as new:
        (new / "what").write_text(text)


def test_a_disk_that_fails_between_the_two_renames_leaves_the_old_folder(old, tmp_path, monkeypatch):
    rename = os.replace

    def fails(source, target):
        if str(source).endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(module.os, "replace", fails)
    with pytest.raises(OSError, match="Input"):
        write(old, replace=True)
    assert (old / "what").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["cat"]


def test_a_folder_set_aside_comes_back_and_an_older_one_beside_the_new_goes(old, tmp_path):
    old.rename(tmp_path / ".cat.old")
    put_back(old)
    assert (old / "what").read_text() == "old"
    (tmp_path / ".cat.old").mkdir()
    put_back(old)
    assert [p.name for p in tmp_path.iterdir()] == ["cat"]


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(old, tmp_path):
    (tmp_path / "link").symlink_to(old)
    write(tmp_path / "link", replace=True)
    write(tmp_path / "link", "newer", replace=True)
    assert (tmp_path / "link").is_symlink()
    assert (old / "what").read_text() == "newer"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat", "link"]


def test_a_folder_that_exists_is_not_replaced_unless_told(old):
    with pytest.raises(ConfigError, match="exists"):
        write(old, replace=False)
    assert (old / "what").read_text() == "old"
