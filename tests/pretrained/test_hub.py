"""Sources: files, folders and repositories of the hub, which is never asked here."""

import json
import os
import sys
import types

import pytest

from segjax.pretrained import WeightsError
from segjax.pretrained.hub import find_weights


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for huggingface_hub: a repository is a folder; keeps what it was asked for."""

    class NotThere(OSError):
        pass

    asked = []

    def download(repository, name, *, revision):
        asked.append((repository, name, revision))
        path = tmp_path / "hub" / repository / name
        if not path.exists():
            raise NotThere(f"404: {name}\nand more")
        return str(path)

    module = types.SimpleNamespace(hf_hub_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return tmp_path / "hub", asked


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_and_folders_need_no_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    file = write(tmp_path / "owner" / "name" / "pytorch_model.bin")
    assert find_weights(file) == file
    assert find_weights(file.parent) == file
    better = write(file.parent / "model.safetensors")
    assert find_weights(str(file.parent)) == better
    monkeypatch.chdir(tmp_path)
    assert find_weights("owner/name").resolve() == better


def test_a_repository_is_asked_for_safetensors_first(hub):
    folder, asked = hub
    old = write(folder / "owner" / "name" / "pytorch_model.bin")
    assert find_weights("owner/name") == old
    better = write(folder / "owner" / "name" / "model.safetensors")
    assert find_weights("owner/name@v1.0") == better
    assert asked == [
        ("owner/name", "model.safetensors", None),
        ("owner/name", "model.safetensors.index.json", None),
        ("owner/name", "pytorch_model.bin", None),
        ("owner/name", "model.safetensors", "v1.0"),
    ]


def test_all_parts_of_large_weights_are_fetched(hub):
    folder, asked = hub
    parts = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = write(folder / "owner" / "name" / "model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"a": parts[1], "b": parts[0], "c": parts[1]}}))
    write(index.with_name(parts[0]))
    with pytest.raises(WeightsError, match="404"):  # one is not there
        find_weights("owner/name")
    write(index.with_name(parts[1]))
    asked.clear()
    assert find_weights("owner/name") == index
    assert [name for _, name, _ in asked] == ["model.safetensors", index.name, *parts]
    index.write_text(json.dumps({"weight_map": {"a": "../../a.safetensors"}}))
    with pytest.raises(WeightsError, match=r"expected names of files beside it, got '\.\./\.\./a"):
        find_weights("owner/name")


def test_a_repository_without_weights_is_refused_in_one_line(hub):
    with pytest.raises(
        WeightsError, match=r"^owner/name: .*404: pytorch_model\.bin\.index\.json\)$"
    ):
        find_weights("owner/name")


@pytest.mark.parametrize("source", ["a.safetensors", "owner/a.pth", "a", "a/b/c", "/a/b", "../a"])
def test_what_can_be_no_repository_is_a_missing_file(hub, source):
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        find_weights(source)
    assert not hub[1]


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        find_weights(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: expected a file or a folder"):
        find_weights(tmp_path / "a.pth")


def test_the_hub_is_asked_for_where_it_is_due(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"owner/name: .*segjax\[hub\]"):
        find_weights("owner/name")


def test_the_real_hub_s_cache_is_read_and_its_errors_are_ours(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"^owner/name: "):
        find_weights("owner/name")
    folder, commit = tmp_path / "models--owner--name", 40 * "1"
    write(folder / "refs" / "main").write_text(commit)
    file = write(folder / "snapshots" / commit / "model.safetensors")
    assert find_weights("owner/name") == file
