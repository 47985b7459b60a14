"""The most confident mistakes: the right images in the right order, and how they are shown."""

import numpy as np
import pytest
import torch
from synthetic_evidence import CLASSES, ENERGY, entry, evidence, scores

from farout.errors import FaroutError
from farout.report.evidence import Evidence, Pictures, View
from farout.report.figures.mistakes import class_name, confident_mistakes, mistakes_figure
from farout.report.figures.style import png_bytes

VALUES = scores(60, ("msp", "energy"), ("SVHN", "iSUN"))
ENTRY = entry(VALUES, ENERGY)
FACTS = evidence(VALUES, focus="energy")


def test_the_chosen_images_are_the_worst() -> None:
    svhn, isun, strange, wrong = confident_mistakes(View(ENTRY), FACTS, count=5)
    order = np.argsort(-VALUES["svhn"]["energy"])[:5]
    assert [p.value for p in svhn.pictures] == pytest.approx(VALUES["svhn"]["energy"][order].tolist())
    for picture, row in zip(svhn.pictures, order, strict=True):
        np.testing.assert_array_equal(picture.pixels, FACTS.pictures["svhn"].images[row])
        assert picture.predicted == CLASSES[np.asarray(FACTS.pictures["svhn"].predictions)[row]]
        assert picture.truth is None
    assert isun.title.startswith("iSUN")
    assert [p.value for p in strange.pictures] == pytest.approx(np.sort(VALUES["id"]["energy"])[:5].tolist())
    missed = ~np.asarray(FACTS.correct)
    best = np.sort(np.asarray(FACTS.confidence)[missed])[::-1][: len(wrong.pictures)]
    assert [p.value for p in wrong.pictures] == pytest.approx(best.tolist())
    assert len(wrong.pictures) == min(5, missed.sum()) > 0
    assert all(p.truth is not None and p.truth != p.predicted for p in wrong.pictures)


def test_a_perfect_network_has_no_misclassified_images() -> None:
    labels = np.zeros(60, dtype=int)
    pictures = {"id": Pictures(np.zeros((60, 3, 8, 8), np.uint8), labels, labels)}
    titles = [g.title for g in confident_mistakes(View(ENTRY), Evidence(VALUES, pictures=pictures))]
    assert titles == ["CIFAR-10: seen as least in-distribution"]


def test_no_images_no_galleries() -> None:
    assert confident_mistakes(View(ENTRY), Evidence(VALUES)) == []


def test_float_noise_and_tensors_are_shown_too() -> None:
    noise = Pictures(torch.randn(9, 3, 8, 8), np.zeros(9, dtype=int))
    shown = noise.rows(np.array([3, 5]))
    assert shown.dtype == np.uint8
    assert (shown.min(), shown.max()) == (0, 255)
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    np.testing.assert_array_equal(Pictures(images, np.zeros(9)).rows(np.array([7]))[0], images[7].numpy())


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    pictures = {"svhn": Pictures(np.zeros((59, 3, 8, 8), np.uint8), np.zeros(60))}
    with pytest.raises(FaroutError, match=r"svhn: .*\[59, 60\]"):
        Evidence(VALUES, pictures=pictures)
    with pytest.raises(FaroutError, match="no set 'id'"):
        Evidence({"svhn": {"msp": np.ones(3)}})


def test_classes_without_a_name_have_a_number() -> None:
    assert class_name(3, CLASSES) == "cat"
    assert class_name(3, ()) == "class 3"


def test_the_grid_holds_every_picture() -> None:
    galleries = confident_mistakes(View(ENTRY), FACTS)
    figure = mistakes_figure(galleries, "Mistakes", "a run")
    mosaics = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    assert [m.shape for m in mosaics] == [(64, 64 * len(g.pictures), 4) for g in galleries]
    pixels = galleries[0].pictures[2].pixels
    np.testing.assert_array_equal(mosaics[0][32, 128 + 32, :3], pixels[:, 30 * 32 // 60, 30 * 32 // 60])
    words = [text.get_text() for text in figure.axes[0].texts]
    for gallery in galleries:
        assert gallery.title in words
        for picture in gallery.pictures:
            assert any(word.startswith(picture.predicted) and f"{picture.value:.4g}" in word for word in words)
    assert png_bytes(figure).startswith(b"\x89PNG")
