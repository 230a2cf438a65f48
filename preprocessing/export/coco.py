"""COCO: one file of everything, and the files that the official SAM3 code reads for training and evaluation.

Read from facebookresearch/sam3, `sam3/train/data/coco_json_loaders.py` and `scripts/eval/gold/README.md`:

- its training loader (`COCO_FROM_JSON`) takes `categories[].name` as the text prompt and makes one query of
  EVERY category of the file for every image; a category without annotation on an image is a negative. A
  concept that nobody searched an image for must therefore not be in that image's file: `sam3/` has one
  file for each split and each set of known concepts. `img_folder` is this folder.
- its evaluation format (SA-Co) lists image-phrase pairs: `saco/` has a pair for each image and known
  concept, with `is_instance_exhaustive` and `is_pixel_exhaustive`. A pair without annotation is a negative.

`annotations.json` holds every image with what LVIS calls them: `neg_category_ids` (searched, not there) and
`not_exhaustive_category_ids`; a category in neither and without annotation is unknown on that image.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra.storage import write_json
from preprocessing import schema
from preprocessing.export.rows import file_keys, known_concepts, picture_file, rows_of

Entry = dict[str, Any]
# The official fine-tuning recipe drops an image whose query has more objects, and reports no loss for it.
_MOST_OBJECTS, _MOST_QUERIES = 200, 81


def write(folder: Path, target: Path, split: str = "", *, separate_instances: bool = False) -> dict[str, Any]:
    """Write `images/`, `annotations.json`, `sam3/*.json`, `sam3/index.json` and `saco/*.json` below `target`.

    Boxes are (x, y, width, height) in pixels, masks COCO compressed RLE. `separate_instances`: whether an
    object is one instance; where not, SA-Co pairs with objects are pixel exhaustive alone.
    """
    report = schema.read_dataset_file(folder)
    concepts = schema.read_concepts(folder)
    numbers = {concept: index for index, concept in enumerate(sorted(concepts), start=1)}
    categories = [
        {"id": number, "name": concept, "synonyms": concepts[concept]["prompts"][1:]}
        for concept, number in numbers.items()
    ]
    keys = file_keys(schema.read_manifest(folder).column("sample_id").to_pylist())
    images: list[Entry] = []
    annotations: list[Entry] = []
    (target / "images").mkdir()
    for row in rows_of(folder, split):
        ending, picture = picture_file(row)
        file = f"images/{keys[row['sample_id']]}.{ending}"
        (target / file).write_bytes(picture)
        images.append(_image(row, len(images) + 1, file, numbers, separate_instances=separate_instances))
        annotations += [
            _annotation(row, item, len(annotations) + place, len(images), numbers[item["concept"]])
            for place, item in enumerate(row["objects"], start=1)
        ]
    head = {
        "info": {"description": report["title"], "version": report["manifest_digest"]},
        "licenses": [{"id": 1, "name": report["licence"].get("terms", ""), "url": ""}],
    }
    _write(target / "annotations.json", head, categories, images, annotations)
    index = _training_files(target / "sam3", head, categories, images, annotations)
    pairs = _evaluation_files(
        target / "saco", head, categories, images, annotations, separate_instances=separate_instances
    )
    return {
        "samples": len(images),
        "objects": len(annotations),
        "files": ["annotations.json", "images/", *index, "sam3/index.json", *pairs],
        "notes": _notes(index, images),
    }


def _image(row: Entry, number: int, file: str, numbers: dict[str, int], *, separate_instances: bool) -> Entry:
    present = {item["concept"] for item in row["objects"]}
    return {
        "id": number,
        "file_name": file,
        "height": row["height"],
        "width": row["width"],
        "license": 1,
        "sample_id": row["sample_id"],
        "split": row["split"],
        "neg_category_ids": sorted(numbers[concept] for concept in row["absent"]),
        "not_exhaustive_category_ids": [] if separate_instances else sorted(numbers[one] for one in present),
        "known_category_ids": sorted(numbers[concept] for concept in known_concepts(row)),
    }


def _annotation(row: Entry, item: Entry, number: int, image: int, category: int) -> Entry:
    x0, y0, x1, y1 = item["bbox_xyxy"]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": item["area"],
        "iscrowd": 0,
        "segmentation": {"size": [row["height"], row["width"]], "counts": item["rle"]},
    }


def _training_files(
    folder: Path, head: Entry, categories: list[Entry], images: list[Entry], annotations: list[Entry]
) -> dict[str, Entry]:
    """One file for each (split, set of known categories); return {file: what it holds}."""
    members: dict[tuple[str, tuple[int, ...]], list[Entry]] = defaultdict(list)
    for image in images:
        if image["known_category_ids"]:  # an image that knows nothing asks nothing
            members[image["split"], tuple(image["known_category_ids"])].append(image)
    of_image = _by_image(annotations)
    index: dict[str, Entry] = {}
    parts: dict[str, int] = defaultdict(int)
    for (split, known), part in sorted(members.items()):
        name = f"{split}-{parts[split]:03d}.json"
        parts[split] += 1
        own = [item for image in part for item in of_image[image["id"]]]
        chosen = [one for one in categories if one["id"] in known]
        _write(folder / name, head, chosen, part, own)
        index[f"sam3/{name}"] = {
            "split": split,
            "img_folder": ".",
            "prompts": [one["name"] for one in chosen],
            "images": len(part),
            "annotations": len(own),
            "most_objects_of_a_query": _most_objects(own),
        }
    write_json(folder / "index.json", index)
    return index


def _evaluation_files(
    folder: Path,
    head: Entry,
    categories: list[Entry],
    images: list[Entry],
    annotations: list[Entry],
    *,
    separate_instances: bool,
) -> list[str]:
    """SA-Co: image-phrase pairs by split, boxes and areas as shares of the image."""
    names = {one["id"]: one["name"] for one in categories}
    of_image = _by_image(annotations)
    written = []
    for split in sorted({image["split"] for image in images}):
        pairs: list[Entry] = []
        found: list[Entry] = []
        for image in images:
            if image["split"] != split:
                continue
            height, width = image["height"], image["width"]
            for category in image["known_category_ids"]:
                own = [item for item in of_image[image["id"]] if item["category_id"] == category]
                pairs.append(
                    {
                        "id": len(pairs) + 1,
                        "file_name": image["file_name"],
                        "height": height,
                        "width": width,
                        "text_input": names[category],
                        "queried_category": str(category),
                        # what is not there is wholly annotated, whatever the rule for instances
                        "is_instance_exhaustive": int(separate_instances or not own),
                        "is_pixel_exhaustive": 1,
                        "sample_id": image["sample_id"],
                    }
                )
                for item in own:
                    x, y, w, h = item["bbox"]
                    found.append(
                        {
                            **item,
                            "id": len(found) + 1,
                            "image_id": len(pairs),
                            "category_id": 1,
                            "bbox": [x / width, y / height, w / width, h / height],
                            "area": item["area"] / (height * width),
                        }
                    )
        _write(folder / f"{split}.json", head, [{"id": 1, "name": "object"}], pairs, found)
        written.append(f"saco/{split}.json")
    return written


def _notes(index: dict[str, Entry], images: list[Entry]) -> list[str]:
    """What a user of the official trainer must know about these very files."""
    notes = []
    silent = sum(not image["known_category_ids"] for image in images)
    if silent:
        notes.append(f"{silent} image(s) know no concept, marked or absent, and are in annotations.json alone")
    most = max((one["most_objects_of_a_query"] for one in index.values()), default=0)
    if most > _MOST_OBJECTS:
        said = f"a query has {most} objects; the official recipe leaves out more than {_MOST_OBJECTS}"
        notes.append(f"{said}: raise max_ann_per_img")
    widest = max((len(one["prompts"]) for one in index.values()), default=0)
    if widest > _MOST_QUERIES:
        notes.append(f"{widest} prompts in one file; the loader takes {_MOST_QUERIES}: set category_chunk_size")
    return notes


def _by_image(annotations: Iterable[Entry]) -> dict[int, list[Entry]]:
    found: dict[int, list[Entry]] = defaultdict(list)
    for item in annotations:
        found[item["image_id"]].append(item)
    return found


def _most_objects(annotations: list[Entry]) -> int:
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for item in annotations:
        counts[item["image_id"], item["category_id"]] += 1
    return max(counts.values(), default=0)


def _write(path: Path, head: Entry, categories: list[Entry], images: list[Entry], annotations: list[Entry]) -> None:
    """Compact JSON: these files are for programs, and may hold millions of annotations."""
    path.parent.mkdir(exist_ok=True)
    value = {**head, "categories": categories, "images": images, "annotations": annotations}
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, separators=(",", ":"))
