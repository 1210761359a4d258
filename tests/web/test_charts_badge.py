"""Badges: what they say, and that it fits."""

import pytest
from drawings import NASTY, SVG, parsed, rectangles, texts, titles
from hypothesis import given
from hypothesis import strategies as st

from builder_web.charts.badge import reproducibility_badge, status_badge


@pytest.mark.parametrize(
    ("badge", "words"),
    [
        (status_badge("hello", True), "hello: succeeded"),
        (status_badge("hello", False, platform="debian-12"), "hello on debian-12: failed"),
        (status_badge("hello", None), "hello: never built"),
        (reproducibility_badge("hello", 1), "hello: reproduced once"),
        (reproducibility_badge("hello", 14), "hello: reproduced 14 times"),
        (reproducibility_badge("hello", 0), "hello: not reproducible"),
        (reproducibility_badge("hello", None, platform="x"), "hello on x: reproducibility unknown"),
    ],
)
def test_what_badges_say(badge: str, words: str) -> None:
    root = parsed(badge)
    assert titles(root) == [words]
    assert root.get("aria-label") == words
    assert ": ".join(texts(root)) == words


@given(job=st.text(st.characters(codec=None)) | st.just("i" * 500) | st.just("W" * 500) | st.just(NASTY))
def test_text_stays_in_its_field(job: str) -> None:
    root = parsed(status_badge(job, True))
    assert root.get("height") == "20"
    edge, label, message = rectangles(root)
    assert edge.width == pytest.approx(float(root.get("width", 0)), abs=0.1)
    assert label.width + message.width == pytest.approx(edge.width, abs=0.2)
    assert edge.width < 400
    for field, text in zip((label, message), root.iter(f"{SVG}text"), strict=True):
        left, length = float(text.get("x", 0)), float(text.get("textLength", 0))
        assert field.x + 5 < left
        assert left + length < field.x + field.width - 5
