import pytest

from segjax.data.folder import Folder
from segjax.data.registry import open_source
from segjax.data.spec import full_spec
from segjax.data.synthetic import Synthetic


def test_opens_what_is_named(write_folder):
    path = write_folder([(2, 3)] * 4)
    source = open_source(f"folder:{path}", "train", void=1)
    assert isinstance(source, Folder)
    assert source.classes.names == ("sky", "car")
    source = open_source("synthetic", "val", shape=(16, 24), length=3)
    assert isinstance(source, Synthetic)
    assert source.sizes.tolist() == [[16, 24]] * 3


def test_what_opening_checks_can_be_followed(write_folder):
    seen = []

    def progress(checks):
        for check in checks:
            yield check
            seen.append(len(checks))

    open_source(f"folder:{write_folder([(2, 3)] * 4)}", "train", progress=progress)
    assert seen == [4] * 4


def test_a_path_may_hold_colons(write_folder, tmp_path):
    write_folder([(2, 3)], split="a:b/train")
    (tmp_path / "classes.json").rename(tmp_path / "a:b" / "classes.json")
    assert len(open_source(f"folder:{tmp_path / 'a:b'}", "train")) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("folders:x", r"unknown source 'folders': did you mean 'folder'\?"),
        ("sintetic", r"unknown source 'sintetic': did you mean 'synthetic'\?"),
        ("ade", r"there are: coco, coco_panoptic, folder, synthetic, tfds"),
        ("coco", "spec: expected one of synthetic, .*, coco:PATH, .*, tfds:NAME; got 'coco'"),
        ("folder", "spec: expected"),
        ("tfds:", "spec: expected"),
        ("synthetic:big", "spec: expected"),
    ],
)
def test_other_names_bring_up_those_that_exist(spec, message):
    with pytest.raises(ValueError, match=message):
        open_source(spec, "train")


def test_splits_that_do_not_exist_bring_up_those_that_do(write_folder):
    path = write_folder([(2, 3)])
    with pytest.raises(ValueError, match="unknown split 'training': did you mean 'train'"):
        open_source(f"folder:{path}", "training")
    with pytest.raises(ValueError, match="val"):
        open_source("synthetic", "vall")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ([], "folder"),
        (["train/images/a.png"], "folder"),
        (["annotations/instances_train2017.json"], "coco"),
        (["train/panoptic.json"], "coco_panoptic"),
    ],
)
def test_a_folder_s_kind_is_seen(tmp_path, files, kind):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert full_spec(str(tmp_path)) == f"{kind}:{tmp_path}"
    assert full_spec(f"folder:{tmp_path}") == f"folder:{tmp_path}"


def test_a_folder_of_two_kinds_has_to_be_told(tmp_path):
    (tmp_path / "annotations").mkdir()
    for kind in ("instances", "panoptic"):
        (tmp_path / "annotations" / f"{kind}_val2017.json").touch()
    with pytest.raises(ValueError, match=r"data: expected coco:.* or coco_panoptic:"):
        full_spec(str(tmp_path))
