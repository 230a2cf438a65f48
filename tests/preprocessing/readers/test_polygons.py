"""Outlines in every notation give the mask that their geometry says; COCO gives what pycocotools gives."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as api
from pycocotools.coco import COCO

from preprocessing.cards import Coco, DatasetCard, Layout, Polygons
from preprocessing.harmonize.case import CaseResult
from tests.preprocessing.made import card_of, mask, masks, only, read

HEIGHT, WIDTH = 60, 80
SQUARE = [(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)]
INNER = [(15.0, 15.0), (20.0, 15.0), (20.0, 20.0), (15.0, 20.0)]
FAR = [(50.0, 40.0), (70.0, 40.0), (70.0, 50.0), (50.0, 50.0)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)).save(tmp_path / "images/a.png")
    return tmp_path


def labelme(*shapes: tuple[str, str, Any]) -> str:
    said = [{"label": label, "shape_type": kind, "points": points} for label, kind, points in shapes]
    return json.dumps({"version": "5.0", "shapes": said, "imageHeight": HEIGHT, "imageWidth": WIDTH})


def imagescope(*regions: tuple[str, Any, str], name: str = "", attribute: str = "Description") -> str:
    body = "".join(
        f'<Region Id="{number}" Type="{kind}" Text="" NegativeROA="{hole}"><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
        + "</Vertices></Region>"
        for number, (kind, points, hole) in enumerate(regions)
    )
    return (
        f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.25"><Annotation Id="1" Name="{name}">'
        f'<Attributes><Attribute Name="{attribute}" Id="0" Value=""/></Attributes>'
        f"<Regions><RegionAttributeHeaders/>{body}</Regions></Annotation></Annotations>"
    )


def asap(points: Any, group: str) -> str:
    inside = "".join(
        f'<Coordinate Order="{number}" X="{x}" Y="{y}"/>' for number, (x, y) in reversed(list(enumerate(points)))
    )
    return (
        f'<ASAP_Annotations><Annotations><Annotation Name="a" Type="Polygon" PartOfGroup="{group}">'
        f"<Coordinates>{inside}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )


def geojson(name: str, *rings: Any) -> str:
    return json.dumps(
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]},
                    "properties": {"classification": {"name": name}},
                }
            ],
        }
    )


def text(points: Any) -> str:
    return "\n".join(f"{x:.4e}   {y:.4e}" for x, y in points)


def square(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    found = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        found[y0:y1, x0:x1] = True
    return found


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (labelme(("Tumour", "polygon", SQUARE)), {"tumour": "tumour"}),
        (labelme(("Tumour", "rectangle", FAR[::2]), ("tumour", "polygon", SQUARE)), {"tumour": "tumour"}),
        (imagescope(("0", SQUARE, "0")), {"": "tumour"}),
        (imagescope(("0", SQUARE, "0"), name="Tumour"), {"tumour": "tumour"}),
        (imagescope(("0", SQUARE, "0"), attribute="Tumour"), {"tumour": "tumour", "other": "vessel"}),
        (asap(SQUARE, "Tumour"), {"tumour": "tumour"}),
        (geojson("Tumour", SQUARE), {"tumour": "tumour"}),
        (text(SQUARE), {"": "tumour"}),
        ("\ufeff" + labelme(("Tumour", "polygon", SQUARE)), {"tumour": "tumour"}),
    ],
)  # fmt: skip
def test_every_notation_gives_the_same_mask(root: Path, content: str, names: dict[str, str]) -> None:
    (root / "masks/a.anything").write_text(content, encoding="utf-8")
    row = only(read(card_of(Polygons(names)), root)).rows[0]
    assert np.array_equal(mask(row, "tumour"), square((10, 10, 30, 30)))


@pytest.mark.parametrize("content", [
    imagescope(("0", SQUARE, "0"), ("0", INNER, "1"), ("0", FAR, "0")), geojson("", SQUARE, INNER)
])  # fmt: skip
def test_holes_are_cut_out_and_every_outline_is_an_instance(root: Path, content: str) -> None:
    (root / "masks/a.x").write_text(content)
    row = only(read(card_of(Polygons({"": "tumour"}), instances="values"), root)).rows[0]
    first = masks(row, "tumour")[0]
    assert np.array_equal(first, square((10, 10, 30, 30)) & ~square((15, 15, 20, 20)))
    assert len(masks(row, "tumour")) == (2 if content.startswith("<") else 1)


def test_circles_and_ellipses_have_their_area(root: Path) -> None:
    (root / "masks/a.json").write_text(labelme(("c", "circle", [(40.0, 30.0), (40.0, 45.0)])))
    row = only(read(card_of(Polygons({"c": "disc"})), root)).rows[0]
    assert mask(row, "disc").sum() == pytest.approx(math.pi * 15**2, rel=0.02)
    (root / "masks/a.json").write_text(imagescope(("2", [(10.0, 20.0), (70.0, 40.0)], "0")))
    row = only(read(card_of(Polygons({"": "disc"})), root)).rows[0]
    assert mask(row, "disc").sum() == pytest.approx(math.pi * 30 * 10, rel=0.03)


def labelme_mask(box: list[tuple[float, float]], pixels: np.ndarray[Any, Any]) -> str:
    """As labelme 5.3 and later writes what its AI tools draw: a PNG of the box, corners included."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    said = {"label": "polyp", "shape_type": "mask", "points": box, "mask": base64.b64encode(buffer.getvalue()).decode()}
    return json.dumps({"version": "5.5.0", "shapes": [said], "imageHeight": HEIGHT, "imageWidth": WIDTH})


@pytest.mark.parametrize("place", [(10, 20), (70, 50)])
def test_a_mask_of_labelme_lies_where_its_box_lies(root: Path, place: tuple[int, int]) -> None:
    x, y = place
    pixels = np.zeros((12, 14), dtype=bool)
    pixels[2:9, 1:5] = pixels[10, 13] = True
    (root / "masks/a.json").write_text(labelme_mask([(x, y), (x + 13.0, y + 11.0)], pixels))
    expected = np.zeros((HEIGHT + 20, WIDTH + 20), dtype=bool)
    expected[y : y + 12, x : x + 14] = pixels
    row = only(read(card_of(Polygons({"polyp": "polyp"})), root)).rows[0]
    assert np.array_equal(mask(row, "polyp"), expected[:HEIGHT, :WIDTH])  # what lies outside is cut off


@pytest.mark.parametrize(
    ("box", "reason"), [([(10.0, 20.0), (30.0, 40.0)], "unreadable"), ([(10.0, 20.0)], "unreadable"),
                        ([(200.0, 200.0), (213.0, 211.0)], "polygon")],
)  # fmt: skip
def test_a_mask_of_labelme_that_does_not_fit_its_box_is_refused(
    root: Path, box: list[tuple[float, float]], reason: str
) -> None:
    (root / "masks/a.json").write_text(labelme_mask(box, np.ones((12, 14), dtype=bool)))
    (result,) = read(card_of(Polygons({"polyp": "polyp"})), root).values()
    refusal = result.refusal
    assert refusal is not None
    assert refusal["reason"] == reason


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_shapes_that_enclose_nothing_are_no_mask(root: Path, kind: str) -> None:
    (root / "masks/a.json").write_text(labelme(("polyp", kind, SQUARE[:2])))
    (result,) = read(card_of(Polygons({"polyp": "polyp"})), root).values()
    refusal = result.refusal
    assert refusal is not None
    assert refusal["reason"] == "label_kind"
    assert kind in refusal["found"]


def test_contours_per_eye_structure_and_expert_as_in_papila(root: Path) -> None:
    (root / "masks").rename(root / "contours")
    (root / "images/a.png").rename(root / "images/RET002OD.png")
    for part, expert, points in (
        ("disc", "1", SQUARE), ("cup", "1", INNER), ("disc", "2", SQUARE), ("cup", "2", SQUARE)
    ):  # fmt: skip
        (root / f"contours/RET002OD_{part}_exp{expert}.txt").write_text(text(points))
    where = r"contours/(?P<case>RET\d+O[DS])_(?P<part>disc|cup)_exp{0}\.txt"
    layout = Layout(
        image=r"images/(?P<case>RET\d+O[DS])\.png", label=where.format(1), readings={"exp2": where.format(2)}
    )
    result = only(read(card_of(Polygons({"disc": "optic disc", "cup": "optic cup"}), layout), root))
    assert np.array_equal(mask(result.rows[0], "optic cup"), square((15, 15, 20, 20)))
    assert np.array_equal(mask(result.rows[0], "optic disc"), square((10, 10, 30, 30)))
    agreement = json.loads(result.columns["agreement"])["exp2"]
    assert agreement == {"optic cup": pytest.approx(2 * 25 / 425), "optic disc": 1.0}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (labelme(("vessel", "polygon", SQUARE)), "unknown_label"),
        (labelme(("tumour", "rectangle", [(1.0, 1.0), (9.0, 9.0)])), "label_kind"),
        (labelme(("tumour", "polygon", SQUARE[:2])), "polygon"),
        (labelme(("tumour", "polygon", [(x + 500, y) for x, y in SQUARE])), "polygon"),
        (labelme(("tumour", "polygon", [*SQUARE, (1e9, 5.0)])), "polygon"),
        (labelme(("tumour", "polygon", [(1.0, float("nan")), (2.0, 3.0), (4.0, 5.0)])), "unreadable"),
        ("1 2 3\n", "unreadable"),
        ("<svg/>", "unreadable"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><Annotations/>', "unreadable"),
        ('{"version": 1}', "unreadable"),
        (labelme(("tumour", "polygon", SQUARE))[:-9], "unreadable"),
        ("\x00\x01", "unreadable"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_mask_is_refused(root: Path, content: str, reason: str) -> None:
    (root / "masks/a.json").write_text(content)
    (result,) = read(card_of(Polygons({"tumour": "tumour"})), root).values()
    assert result.refusal is not None
    assert (result.refusal["reason"], result.refusal["file"]) == (reason, "masks/a.json")


# --- COCO -----------------------------------------------------------------------------------------------------------


def coco_card(**said: Any) -> DatasetCard:
    layout = Layout(
        image=r"(?P<case>(?P<set>\w+/(?P<split>train|val))/images/\w+)\.png",
        label=r"(?P<set>\w+/(train|val))/annotations/\w+\.json",
    )
    rule = Coco({"polyp": "polyp", "vessel": "retinal vessel"}, ignore=("instrument",))
    return card_of(rule, layout, official_split={"train": "train", "val": "val"}, instances="values", **said)


def coco_file(root: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], part: str = "train") -> Path:
    for folder in ("images", "annotations"):
        (root / f"x/{part}" / folder).mkdir(parents=True, exist_ok=True)
    names = ("polyp", "vessel", "instrument", "unknown thing")
    categories = [{"id": number, "name": name.title()} for number, name in enumerate(names, start=1)]
    full = [{"width": WIDTH, "height": HEIGHT, **each} for each in images]
    said = [{"id": number, "iscrowd": 0, **each} for number, each in enumerate(annotations, start=1)]
    path = root / f"x/{part}/annotations/{part}.json"
    path.write_text(json.dumps({"images": full, "annotations": said, "categories": categories}))
    return path


def picture(root: Path, name: str, part: str = "train") -> None:
    (root / f"x/{part}/images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)).save(root / f"x/{part}/images/{name}")


def refusals(results: dict[str, CaseResult]) -> dict[str, str]:
    return {name: result.refusal["reason"] for name, result in results.items() if result.refusal}


def test_polygons_and_run_lengths_are_what_pycocotools_decodes(tmp_path: Path) -> None:
    random = np.asfortranarray((np.random.default_rng(3).random((HEIGHT, WIDTH)) > 0.7).astype(np.uint8))
    packed = api.encode(random)
    runs = [int(run) for run in np.diff(np.flatnonzero(np.diff(np.r_[2, random.ravel("F"), 2])))]
    runs = runs if random[0, 0] == 0 else [0, *runs]
    flat = [value for point in SQUARE for value in point]
    slanted = [12.3, 40.7, 33.9, 44.2, 20.1, 57.8]
    path = coco_file(
        tmp_path,
        [{"id": 5, "file_name": "1.png"}],
        [
            {"image_id": 5, "category_id": 1, "segmentation": [flat, slanted]},
            {"image_id": 5, "category_id": 1, "segmentation": [[value + 20 for value in flat]]},
            {"image_id": 5, "category_id": 2, "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}, "iscrowd": 1},
            {"image_id": 5, "category_id": 2,
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}},
            {"image_id": 5, "category_id": 3, "segmentation": [flat]},
        ],
    )  # fmt: skip
    picture(tmp_path, "1.png")
    result = only(read(coco_card(), tmp_path))
    oracle = COCO(str(path))
    theirs = [oracle.annToMask(each).astype(bool) for each in oracle.loadAnns([1, 2, 3, 4])]
    ours = [*masks(result.rows[0], "polyp"), *masks(result.rows[0], "retinal vessel")]
    assert all(np.array_equal(left, right) for left, right in zip(ours, theirs, strict=True))
    assert np.array_equal(ours[3], random.astype(bool))
    assert {each["concept"] for each in result.rows[0]["objects"]} == {"polyp", "retinal vessel"}


def test_every_image_named_or_found_is_kept_or_refused(tmp_path: Path) -> None:
    square = {"category_id": 1, "segmentation": [[value for point in SQUARE for value in point]]}
    coco_file(
        tmp_path,
        [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "gone.png"}, {"id": 3, "file_name": "empty.png"}],
        [{"image_id": 1, **square}, {"image_id": 2, **square}],
    )
    coco_file(tmp_path, [{"id": 9, "file_name": "images/1.png"}], [], "val")
    for name in ("1.png", "empty.png", "untold.png"):
        picture(tmp_path, name)
    picture(tmp_path, "1.png", "val")
    results = read(coco_card(searched=("polyp",)), tmp_path)
    kept = {name: len(result.rows[0]["objects"]) for name, result in results.items() if result.refusal is None}
    assert kept == {"x_train_images_1": 1, "x_train_images_empty": 0, "x_val_images_1": 0}
    assert refusals(results) == {
        "x_train_annotations_train_gone.png": "image_missing",
        "x_train_images_untold": "label_missing",
    }
    assert results["x_train_images_empty"].rows[0]["absent"] == ["polyp"]


@pytest.mark.parametrize(
    ("annotation", "image", "reason"),
    [
        ({"category_id": 4, "segmentation": [[1, 1, 9, 1, 9, 9]]}, {}, "unknown_label"),
        ({"category_id": 1, "segmentation": [], "bbox": [1, 1, 5, 5]}, {}, "label_kind"),
        ({"category_id": 1, "segmentation": [[1, 1, 9, 1]]}, {}, "polygon"),
        ({"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [5]}}, {}, "unreadable"),
        ({"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": "oooo2"}}, {}, "unreadable"),
        ({"category_id": 1, "segmentation": {"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}}, {}, "mask_size"),
        ({"category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}, {"width": HEIGHT, "height": WIDTH}, "mask_size"),
        ({"category_id": 99, "segmentation": [[1, 1, 9, 1, 9, 9]]}, {}, "unreadable"),
    ],
)
def test_annotations_that_say_no_mask_refuse_their_image(
    tmp_path: Path, annotation: dict[str, Any], image: dict[str, Any], reason: str
) -> None:
    coco_file(tmp_path, [{"id": 1, "file_name": "1.png", **image}], [{"image_id": 1, **annotation}])
    picture(tmp_path, "1.png")
    assert refusals(read(coco_card(), tmp_path)) == {"x_train_images_1": reason}


def test_a_broken_coco_file_refuses_its_images_and_no_others(tmp_path: Path) -> None:
    coco_file(tmp_path, [{"id": 1, "file_name": "1.png"}], []).write_text("{")
    coco_file(tmp_path, [{"id": 1, "file_name": "1.png"}], [], "val")
    picture(tmp_path, "1.png")
    picture(tmp_path, "1.png", "val")
    results = read(coco_card(searched=("polyp",)), tmp_path)
    assert refusals(results) == {"x_train_images_1": "unreadable"}
    assert results["x_val_images_1"].refusal is None
