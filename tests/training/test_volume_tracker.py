"""Following objects through a volume with SAM3's own tracker on the detector's vision encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoModel
from transformers.models.sam3_video.configuration_sam3_video import Sam3VideoConfig
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

from infra.errors import DataError
from tests.training.made_volumes import Case, write_volumes
from tests.training.small import small_config, small_model
from training.decision import Decision
from training.predict import Segmenter
from training.sam3 import sizes
from training.volumes.cases import volumes_of
from training.volumes.evidence import Evidence
from training.volumes.fit_tracker import draw_sequence, fit_tracker, sequences_of
from training.volumes.follow import Following, follow, slice_features, track_object
from training.volumes.measure import WAYS, Models, answer, look
from training.volumes.tracker import VolumeTracker, backbone_states, initialise_tracker, tracker_config

SIZE = 56
DECISION = Decision(mask_threshold=0.5, presence_threshold=0.3)


class Words:
    """Token ids by the length of a text: the small model has no vocabulary."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1 + len(text) % 200, 2, *[0] * 30] for text in texts])


def segmenter_of(neighbours: int = 0) -> Segmenter:
    return Segmenter(small_model(), Words(), SIZE, Decision(0.5, 0.0), neighbours=neighbours)  # type: ignore[arg-type]


def tracker_of(seed: int = 0) -> VolumeTracker:
    tracker = VolumeTracker(Sam3Config(**small_config()))
    initialise_tracker(tracker, seed)
    return tracker.eval()


def drifting(slices: int = 8, size: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two bright bars of unlike height that drift apart, on a dark ground: pixels and the mask of each."""
    draw = np.random.default_rng(0)
    one, two = (np.zeros((slices, size, size), dtype=bool) for _ in range(2))
    for number in range(slices):
        one[number, 6:22, 4 + 3 * number : 16 + 3 * number] = True
        two[number, 36:58, 44 - 3 * number : 56 - 3 * number] = True
    pixels = draw.integers(20, 40, one.shape)
    pixels[one], pixels[two] = 220, 160
    return pixels.astype(np.uint8), one, two


def test_the_tensors_have_the_names_of_transformers_video_model() -> None:
    config = Sam3Config(**small_config())
    official = Sam3VideoModel(Sam3VideoConfig(detector_config=config.to_dict(), tracker_config=tracker_config(config)))
    names = {name for name in official.state_dict() if name.startswith(("tracker_neck.", "tracker_model."))}
    assert set(tracker_of().state_dict()) == names


def test_at_the_official_width_the_plan_is_the_official_one() -> None:
    from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import Sam3TrackerVideoConfig

    ours, official = tracker_config(Sam3Config(**sizes.full())).to_dict(), Sam3TrackerVideoConfig().to_dict()
    for part in (ours, official):
        part.pop("vision_config")  # the detector's
    assert ours == official


def test_features_are_those_of_transformers_tracker_on_the_same_vision_encoder() -> None:
    model, tracker = small_model(), tracker_of()
    whole = Sam3TrackerVideoModel(tracker_config(model.config)).eval()
    whole.vision_encoder.backbone.load_state_dict(model.vision_encoder.backbone.state_dict())
    whole.vision_encoder.neck.load_state_dict(tracker.tracker_neck.state_dict())
    whole.mask_decoder.load_state_dict(tracker.tracker_model.mask_decoder.state_dict())
    pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = tracker.features(backbone_states(model, pixels))
        for number in range(3):
            expected = whole.get_image_features(pixels[number : number + 1], return_dict=True)
            for ours, theirs in zip(found[number]["vision_feats"], expected.fpn_hidden_states, strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
            for ours, theirs in zip(found[number]["vision_pos_embeds"], expected.fpn_position_encoding, strict=True):
                torch.testing.assert_close(ours, theirs)


def test_a_track_starts_on_the_surest_slice_and_never_on_another() -> None:
    """The slice with presence and map on its side starts, not the largest, the middle or the first one."""
    maps = np.full((6, 16, 16), -3.0, dtype=np.float32)
    maps[1:5, 4:12, 4:12] = 1.0
    maps[4, 4:8, 4:8] = 6.0
    presence = np.array([0.1, 0.9, 0.9, 0.9, 0.95, 0.1], dtype=np.float32)
    given: list[tuple[int, int]] = []

    def track(start: int, mask: np.ndarray) -> np.ndarray:
        given.append((start, int(mask.sum())))
        return maps

    evidence = Evidence(maps, presence, presence)
    labels, tracks, starts = follow(track, evidence, 32, 32, DECISION, Following(most_tracks=3, window=0))
    assert starts == [4]
    assert given == [(4, 64)]  # the detector's own mask of that slice
    assert [(one.first, one.last) for one in tracks] == [(1, 4)]
    assert labels.shape == (6, 32, 32)
    nothing = Evidence(maps, np.full(6, 0.1, np.float32), presence)
    labels, tracks, _ = follow(track, nothing, 32, 32, DECISION, Following())
    assert not labels.any()
    assert not tracks


def test_what_a_track_leaves_starts_the_next_and_keeps_its_own_number() -> None:
    maps = np.full((8, 16, 16), -4.0, dtype=np.float32)
    maps[0:3, 2:6, 2:6] = 4.0
    maps[5:8, 9:14, 9:14] = 3.0
    presence = np.array([0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9], dtype=np.float32)

    def track(start: int, mask: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(mask)
        found = np.full_like(maps, -4.0)
        inside = np.s_[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        found[inside] = maps[inside]
        return found

    evidence = Evidence(maps, presence, presence)
    labels, tracks, starts = follow(track, evidence, 16, 16, DECISION, Following(most_tracks=3, window=0))
    assert len(starts) == 2
    assert [(one.number, one.first, one.last) for one in tracks] == [(1, 0, 2), (2, 5, 7)]
    assert set(np.unique(labels[:4])) == {0, 1}
    assert set(np.unique(labels[4:])) == {0, 2}
    only, _, _ = follow(track, evidence, 16, 16, DECISION, Following(most_tracks=1, window=0))
    assert not only[4:].any()
    gated = Evidence(maps, np.where(np.arange(8) == 1, 0.01, presence).astype(np.float32), presence)
    labels, _, _ = follow(track, gated, 16, 16, DECISION, Following(most_tracks=1, window=0, gate=0.5))
    assert not labels[1].any()
    assert labels[0].any()


def test_the_real_tracker_reaches_both_ends_and_depends_on_the_mask_it_is_given() -> None:
    segmenter, tracker = segmenter_of(), tracker_of()
    with torch.no_grad():  # an untrained tracker sees an object everywhere, so that its maps can be looked at
        tracker.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(100.0)
    pixels, one, two = drifting()
    features = slice_features(segmenter, tracker, list(pixels))
    scale = SIZE / pixels.shape[1]
    assert scale < 1
    small = [
        torch.nn.functional.interpolate(torch.from_numpy(m[3])[None, None].float(), (SIZE, SIZE))[0, 0] > 0.5
        for m in (one, two)
    ]
    first, second = (track_object(tracker, features, 3, mask.numpy()) for mask in small)
    assert first.shape[0] == len(pixels)
    assert (first > -1000).any(axis=(1, 2)).all()
    grid = first.shape[-1]
    assert (first[3] > 0).sum() == pytest.approx(int(small[0].sum()) * (grid / SIZE) ** 2, rel=0.3)
    assert all(np.abs(first[number] - second[number]).max() > 1e-3 for number in range(len(pixels)))
    again = track_object(tracker, features, 3, small[0].numpy())
    np.testing.assert_array_equal(first, again)


def test_training_the_tracker_lowers_its_loss_and_leaves_the_detector_alone(tmp_path: Path) -> None:
    pixels, one, two = drifting()
    write_volumes(tmp_path, "Alpha", [Case("a", pixels, {"one": one, "two": two})])
    segmenter, tracker = segmenter_of(), tracker_of()
    before = {name: value.clone() for name, value in segmenter.model.state_dict().items()}
    sequences = sequences_of(segmenter, tmp_path, ["Alpha"])
    states, masks = draw_sequence(sequences, 4, np.random.default_rng(0))
    assert len(states) == len(masks) >= 2
    assert masks[0].any()
    history = fit_tracker(tracker, sequences, steps=24, batch=2, length=4, learning_rate=2e-3, seed=0)
    assert np.mean(history[-6:]) < 0.8 * np.mean(history[:6])
    assert all(torch.equal(value, before[name]) for name, value in segmenter.model.state_dict().items())
    tracker.save(tmp_path)
    loaded = VolumeTracker.load(tmp_path, segmenter.model.config)
    assert all(torch.equal(value, tracker.state_dict()[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(DataError, match="do not fit"):
        loaded.take({"tracker_model.more": torch.zeros(1)}, "elsewhere")
    with pytest.raises(DataError, match="found none"):
        VolumeTracker.load(tmp_path / "empty", segmenter.model.config)


def test_no_way_looks_at_the_truth(tmp_path: Path) -> None:
    """With truth turned inside out the answers of every way are the same, voxel by voxel."""
    pixels, one, two = drifting(5)
    write_volumes(tmp_path, "Alpha", [Case("a", pixels, {"one": one, "two": two}, split="val")])
    models = Models(segmenter_of(), segmenter_of(1), tracker_of())
    answers: list[dict[str, Any]] = []
    for turned in (False, True):
        [volume] = volumes_of(tmp_path, "Alpha", "val")
        if turned:
            volume.truth = {name: ~truth[::-1] for name, truth in volume.truth.items()}
            volume.known = {name: ~known for name, known in volume.known.items()}
        seen = look(models, volume)
        answers.append({way: answer(way, tried[-1], seen, models)[0] for way, tried in WAYS.items()})
    for way in WAYS:
        for concept, mask in answers[0][way].items():
            np.testing.assert_array_equal(mask, answers[1][way][concept], err_msg=way)
    assert any(mask.any() for mask in answers[0]["slices"].values())
