from __future__ import annotations

import errno
import os

import pytest
import torch
from safetensors import safe_open

from vidsynth.errors import CannotWrite, UnsupportedVideo
from vidsynth.files import cache_folder, cache_key, cannot_write, save_tensors, writing


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with writing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(RuntimeError), writing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_file_that_is_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="file"), writing(tmp_path / "file" / "a.txt"):
        pass


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "not writable"), (errno.EIO, "Input/output")],
)
def test_the_reason_is_said(tmp_path, number, said):
    assert said in str(cannot_write(tmp_path, OSError(number, os.strerror(number))))


def test_a_full_disk_is_named_whatever_the_library_calls_it(tmp_path):
    """torch raises a RuntimeError while the OSError is handled; safetensors words it."""

    def as_torch():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 2944 vs 2838")

    def as_safetensors():
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    for fail in (as_torch, as_safetensors):
        with pytest.raises(CannotWrite, match="disk is full"), writing(tmp_path / "a"):
            fail()
    assert os.listdir(tmp_path) == []


def test_errors_of_vidsynths_own_pass_unchanged(tmp_path):
    with pytest.raises(UnsupportedVideo), writing(tmp_path / "a"):
        try:
            raise OSError(errno.ENOSPC, "elsewhere")
        except OSError as error:
            raise UnsupportedVideo("a.mp4 is damaged") from error


def test_the_cache_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))
    assert cache_folder("a", "b") == tmp_path / "cache" / "a" / "b"
    assert cache_folder("a", "b").is_dir()


def test_keys_follow_from_values_alone():
    assert cache_key({"a": 1, "b": 2}, None) == cache_key({"b": 2, "a": 1}, None)
    assert cache_key(1) != cache_key("1")


def test_a_file_of_tensors_has_the_bytes_that_follow_from_what_it_holds(tmp_path):
    tensors = {"b": torch.arange(3), "a": torch.rand(2, 2)}
    told = {name: f'{name} \u00e9 "quoted"' for name in "zyxwvu"}
    written = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        save_tensors(path, tensors, told)
        written.add(path.read_bytes())
        with safe_open(path, "pt") as file:
            assert file.metadata() == told
            assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in tensors)
    assert len(written) == 1
