import json

import pytest

from segjax.data.class_list import instance_classes, read_classes, write_classes
from segjax.data.errors import DataError
from segjax.data.label_code import UNKNOWN, VOID
from segjax.data.source import Classes


@pytest.fixture
def written(tmp_path):
    def write(content):
        file = tmp_path / "classes.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


@pytest.mark.parametrize(
    "content",
    [
        ["sky", "road"],
        {"classes": ["sky", "road"]},
        {"classes": [{"name": "sky"}, {"name": "road", "id": 1}], "ignore_index": None},
        [{"id": 1, "name": "road", "color": [0, 0, 255]}, {"id": 0, "name": "sky"}],
    ],
)
def test_every_form_declares_the_same(written, content):
    classes, code = read_classes(written(content))
    assert classes.names == ("sky", "road")
    assert code.table[[0, 1, 2, 255]].tolist() == [0, 1, UNKNOWN, VOID]


def test_colors_are_kept_or_made_up(written):
    declared = [{"name": "sky", "color": [1, 2, 3]}, {"name": "road"}, {"name": "car"}]
    colors = read_classes(written(declared))[0].colors
    assert colors[0] == (1, 2, 3)
    assert len(set(colors)) == 3


def test_the_void_id_is_no_class_and_void_overrides_it(written):
    content = {"classes": [{"id": i, "name": str(i)} for i in (0, 1, 7)], "ignore_index": 7}
    classes, code = read_classes(written(content))
    assert classes.names == ("0", "1")
    assert code.table[[0, 1, 7]].tolist() == [0, 1, VOID]
    classes, code = read_classes(written(content), void=0)
    assert classes.names == ("1", "7")
    assert classes.ids == (1, 7)
    assert code.table[[0, 1, 7]].tolist() == [VOID, 0, 1]


def test_255_is_a_class_if_declared(written):
    _, code = read_classes(written([{"id": 255, "name": "road"}, {"id": 0, "name": "sky"}]))
    assert code.table[[0, 255]].tolist() == [0, 1]


def test_every_id_may_be_a_class(written):
    count = 2**16
    classes, code = read_classes(written([str(number) for number in range(count)]))
    assert classes.ids == tuple(range(count))
    assert len(classes.colors) == count
    assert code.table[[0, 255, 65535]].tolist() == [0, 255, 65535]


def test_classes_come_back(tmp_path):
    classes = Classes(("sky", "Öl"), ((1, 2, 3), (4, 5, 6)), ids=(3, 300))
    write_classes(tmp_path / "classes.json", classes)
    assert read_classes(tmp_path / "classes.json")[0] == classes


def test_a_color_of_two_classes_stands_for_neither(written):
    same = [{"name": name, "color": [9, 9, 9]} for name in ("sky", "road")]
    _, code = read_classes(written([*same, {"name": "car", "color": [1, 1, 1]}]))
    assert code.colors == {(1, 1, 1): 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "expected JSON"),
        ("[" * 200_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "expected JSON"),
        ("\udcff", "expected JSON"),
        ('"sky"', "expected a list"),
        ({"names": ["sky"]}, "expected a list"),
        ({"classes": {"0": "sky"}}, "expected a list"),
        ([], "classes: expected at least one"),
        (
            {"classes": [{"id": 3, "name": "other"}], "ignore_index": 3},
            "classes: expected at least one",
        ),
        (["sky", 3], r"classes\[1\]: expected a name"),
        ([{"id": 0}], r"classes\[0\]: expected a name"),
        ([{"id": 0, "name": 5}], r"classes\[0\]: expected a name"),
        (["\ud800"], r"classes\[0\]: expected a name"),
        ([{"id": -1, "name": "sky"}], "id of 'sky'"),
        ([{"id": 65536, "name": "sky"}], "id of 'sky'"),
        ([{"id": "0", "name": "sky"}], "id of 'sky'"),
        ([{"id": True, "name": "sky"}], "id of 'sky'"),
        ([{"id": 2, "name": "sky"}, {"id": 2, "name": "road"}], "several 2"),
        ([{"name": "sky", "color": [0, 0]}], "color of 'sky'"),
        ([{"name": "sky", "color": [0, 0, 256]}], "color of 'sky'"),
        ([{"name": "sky", "color": "blue"}], "color of 'sky'"),
        ({"classes": ["sky"], "ignore_index": "11"}, "ignore_index"),
        ({"classes": ["sky"], "ignore_index": -1}, "ignore_index"),
    ],
)
def test_what_is_malformed_is_named(tmp_path, content, message):
    file = tmp_path / "classes.json"
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message) as error:
        read_classes(file)
    assert str(error.value).startswith(f"{file}: ")


def test_instances_are_background_and_object(tmp_path):
    file = tmp_path / "instances.json"
    assert instance_classes(file)[0].names == ("background", "object")
    file.write_text('{"categories": [{"id": 1, "name": "nucleus"}]}')
    classes, code = instance_classes(file, void=9)
    assert classes.names == ("background", "nucleus")
    assert classes.ids == (0, 1)
    assert code.table[[0, 1, 8, 9, 255, 65535]].tolist() == [0, 1, 1, VOID, 1, 1]
    for number, ids in ((7, (0, 7)), (0, (1, 0)), ("7", (0, 1))):
        file.write_text(json.dumps({"categories": [{"id": number, "name": "nucleus"}]}))
        assert instance_classes(file)[0].ids == ids
    file.write_text('{"categories": [{"name": "cat"}, {"name": "dog"}]}')
    assert instance_classes(file)[0].names == ("background", "object")
    file.write_text("[]")
    with pytest.raises(DataError, match=r"instances\.json: expected"):
        instance_classes(file)
