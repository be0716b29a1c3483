"""What is written of a data set in its own ids comes back when it is read."""

import contextlib
import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest

from segjax.commands.results import Results, find_listed, number_images, provide_classes
from segjax.data import Classes, Coco, CocoPanoptic, Folder, Synthetic
from segjax.data.errors import DataError
from segjax.inference import InstancePrediction, PanopticPrediction, SemanticPrediction
from segjax.typing import Instances
from segjax.viz import save_image

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}]
SHAPE = (6, 9)
IMAGES = [
    {"id": 139, "file_name": "a.png", "height": 6, "width": 9},
    {"id": 5, "file_name": "b.png", "height": 6, "width": 9},
]


def write_images(folder):
    for name in ("a", "b"):
        save_image_in(folder / f"{name}.png", np.full((*SHAPE, 3), 7, np.uint8))


def save_image_in(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, pixels)


@pytest.fixture
def coco(tmp_path):
    """Two objects in each image, of the categories 3 and 90."""
    folder = tmp_path / "coco"
    write_images(folder / "images")
    boxes = [(image["id"], c, x) for image in IMAGES for c, x in ((3, 0), (90, 5))]
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": [x, 1, 3, 4], "area": 12, "iscrowd": 0}
        | {"segmentation": [[x, 1, x + 3, 1, x + 3, 5, x, 5]]}
        for k, (i, c, x) in enumerate(boxes, 1)
    ]
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def panoptic(tmp_path):
    folder = tmp_path / "panoptic"
    write_images(folder / "images")
    ids = np.zeros((*SHAPE, 3), np.uint8)
    ids[:3, :, 0], ids[3:, 2:, 1] = 7, 2  # 7 and 512; the rest is void
    segments = [
        {"id": 7, "category_id": 90, "iscrowd": 0, "area": 27},
        {"id": 512, "category_id": 3, "iscrowd": 0, "area": 21},
    ]
    for name in ("a", "b"):
        save_image_in(folder / f"panoptic/{name}.png", ids)
    annotations = [
        {"image_id": each["id"], "file_name": each["file_name"], "segments_info": segments}
        for each in IMAGES
    ]
    things = [CATEGORIES[0] | {"isthing": 0}, CATEGORIES[1] | {"isthing": 1}]
    content = {"images": IMAGES, "categories": things, "annotations": annotations}
    (folder / "panoptic.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def masks(tmp_path):
    """Classes 1 and 300, and 4 and 255 void."""
    folder = tmp_path / "masks"
    classes = [{"id": number, "name": str(number)} for number in (300, 1, 4)]
    write_images(folder / "images")
    (folder / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 4}))
    for name in ("a", "b"):
        drawn = np.random.default_rng(ord(name)).choice([1, 300, 4, 255], SHAPE).astype(np.uint16)
        save_image_in(folder / f"masks/{name}.png", drawn)
    return folder


@pytest.fixture
def objects(tmp_path):
    folder = tmp_path / "objects"
    write_images(folder / "images")
    (folder / "instances.json").write_text(json.dumps({"categories": CATEGORIES[:1]}))
    for name in ("a", "b"):
        save_image_in(folder / f"instances/{name}.png", np.eye(*SHAPE).astype(np.uint8) * 3)
    return folder


def _source(kind, request):
    if kind == "synthetic":
        return Synthetic(shape=(32, 32))
    path = request.getfixturevalue(kind)
    return CocoPanoptic(path, None) if kind == "panoptic" else Folder(path, None)


@pytest.mark.parametrize("kind", ["masks", "objects", "panoptic", "synthetic"])
def test_labels_come_back(kind, request, tmp_path):
    source, folder, record = _source(kind, request), tmp_path / "written", None
    for k in range(2):
        record = source[k]
        probs = np.eye(len(source.classes), dtype=np.float32)[record.labels]
        prediction = SemanticPrediction(record.image, probs, source.classes)
        prediction.save(folder / f"masks/{k}")
        (folder / f"masks/{k}_overlay.png").unlink()
        save_image_in(folder / f"images/{k}.png", np.zeros((*record.labels.shape, 3), np.uint8))
    provide_classes(folder / "classes.json", source.classes)
    again = Folder(folder, None)
    assert again.classes == Classes(
        source.classes.names, source.classes.colors, ids=source.classes.ids
    )
    np.testing.assert_array_equal(again.read(1).labels, record.labels)


def _predict(source, kind, ids, folder):
    """What is written where a model predicts what the source holds."""
    results = Results(source.classes, ids)
    for k, file in enumerate(ids):
        record = source.read(k)
        if kind is InstancePrediction:
            found = record.instances
            scores = np.ones(len(found.valid), np.float32)
            found = Instances(
                found.boxes, found.classes, found.valid, scores=scores, masks=found.masks
            )
            prediction = InstancePrediction(record.image, found, source.classes, 0.5)
        else:
            prediction = PanopticPrediction(record.image, record.panoptic, source.classes)
        prediction.save(folder / file.stem)
        results.add(file, file.stem, prediction)
    return results


def test_objects_come_back(coco, tmp_path):
    source = Coco(coco, None)
    files = [coco / "images/a.png", coco / "images/b.png"]
    listed = find_listed(files, coco / "instances.json")
    ids = {file: number for file, (number, _) in listed.items()}
    _predict(source, InstancePrediction, ids, tmp_path / "out").write_objects(
        tmp_path / "out/results.json"
    )
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert [(each["image_id"], each["category_id"]) for each in found] == [
        (139, 3),
        (139, 90),
        (5, 3),
        (5, 90),
    ]
    own = json.loads((tmp_path / "out/b.json").read_text())
    assert [{"image_id": 5} | each for each in own] == found[2:]
    content = json.loads((coco / "instances.json").read_text()) | {"annotations": found}
    (coco / "instances.json").write_text(json.dumps(content))
    again = Coco(coco, None)
    assert again.classes == source.classes
    for k in range(2):
        before, after = source.read(k).instances, again.read(k).instances
        np.testing.assert_array_equal(after.masks, before.masks)
        np.testing.assert_array_equal(after.classes, before.classes)
        np.testing.assert_array_equal(after.boxes, before.boxes)


def test_perfect_objects_are_perfect_to_pycocotools(coco, tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {Path("a.png"): 139, Path("b.png"): 5}
    path = tmp_path / "out/results.json"
    _predict(Coco(coco, None), InstancePrediction, ids, path.parent).write_objects(path)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco / "instances.json"))
        for kind in ("bbox", "segm"):
            judged = COCOeval(truth, truth.loadRes(str(path)), kind)
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
            assert judged.stats[0] == pytest.approx(1)


def test_segments_come_back(panoptic, tmp_path):
    source = CocoPanoptic(panoptic, None)
    ids = {Path("a.png"): 139, Path("b.png"): 5}
    out = tmp_path / "out"
    (out / "panoptic").mkdir(parents=True)
    _predict(source, PanopticPrediction, ids, out / "panoptic").write_segments(
        out / "panoptic.json"
    )
    write_images(out / "images")
    again = CocoPanoptic(out, None)
    assert again.classes == source.classes
    for k in range(2):
        before, after = source.read(k).panoptic, again.read(k).panoptic
        np.testing.assert_array_equal(after.segments, before.segments)
        np.testing.assert_array_equal(after.classes, before.classes)


def test_perfect_segments_are_perfect_to_panopticapi(panoptic, tmp_path, monkeypatch):
    evaluation = pytest.importorskip("panopticapi.evaluation")
    one_process = functools.partial(evaluation.pq_compute_single_core, 0)
    monkeypatch.setattr(evaluation, "pq_compute_multi_core", one_process)
    out = tmp_path / "out"
    source = CocoPanoptic(panoptic, None)
    ids = {Path("a.png"): 139, Path("b.png"): 5}
    _predict(source, PanopticPrediction, ids, out).write_segments(out / "results.json")
    for file, maps in (
        (panoptic / "panoptic.json", panoptic / "panoptic"),
        (out / "results.json", out),
    ):
        predicted = str(out / "results.json"), str(maps), str(out)
        scores = evaluation.pq_compute(str(file), *predicted)
        assert scores["All"] == {"pq": 1, "sq": 1, "rq": 1, "n": 2}


def test_images_are_found_by_the_ends_of_their_paths(tmp_path):
    listed = [
        {"id": k, "file_name": name, "height": 3, "width": 4}
        for k, name in enumerate(("x/1.png", "y/1.png", "2.png"))
    ]
    file = tmp_path / "list.json"
    file.write_text(json.dumps({"images": listed}))
    photos = [tmp_path / "y/1.png", tmp_path / "any/2.png"]
    found = find_listed(photos, file)
    assert [(number, image.path) for number, image in found.values()] == [
        (1, photos[0]),
        (2, photos[1]),
    ]
    for photo, count in (("z/1.png", 0), ("3.png", 0)):
        with pytest.raises(DataError, match=rf"list.json: expected one image .*, got {count}"):
            find_listed([tmp_path / photo], file)


def test_images_without_a_list_are_numbered():
    assert number_images([Path("000139.jpg"), Path("x/7.png")]) == {
        Path("000139.jpg"): 139,
        Path("x/7.png"): 7,
    }
    assert list(number_images([Path("a/7.jpg"), Path("b/7.jpg")]).values()) == [1, 2]
    assert list(number_images([Path("7.jpg"), Path("photo.jpg")]).values()) == [1, 2]


def test_classes_of_another_data_set_are_not_replaced(tmp_path):
    file = tmp_path / "classes.json"
    classes = Classes(("sky",), ((1, 2, 3),), ids=(8,))
    provide_classes(file, classes)
    provide_classes(file, classes)
    with pytest.raises(ValueError, match=r"classes\.json: expected the classes of the model"):
        provide_classes(file, Classes(("sky",), ((1, 2, 3),), ids=(9,)))
