"""The page shows names as they are written, whatever is in them, and needs nothing from outside."""

from __future__ import annotations

import re

import torch

from starling.trainer.judging.evaluation import Bootstrap, Dataset, Evaluation, Metric, Recorded, Sorting
from starling.trainer.judging.page import page
from starling.trainer.judging.sorting import Sorted, describe
from starling.trainer.judging.style import STYLE

HOSTILE = '<script>alert("x")</script>'


def an_evaluation(sorting: Sorting | None) -> Evaluation:
    return Evaluation(
        run=HOSTILE,
        incarnation=0,
        step=1200,
        epoch=3,
        checkpoint="/store/runs/r/checkpoints/0000001200/manifest.json",
        weights_sha256="w" * 64,
        state_sha256="s" * 64,
        task="grading",
        model=None,
        dataset=Dataset(name="d", split="val", samples=4, patients=None, content_sha256=None, trained_on=False),
        command=f"starling evaluate {HOSTILE}",
        at=0.0,
        starling="0",
        device={"device": "cpu"},
        metrics={"accuracy": Metric(value=0.5), "kappa": Metric(value=None)},
        bootstrap=Bootstrap(resamples=0, seed=0, confidence=0.95, unit="sample"),
        recorded=None,
        sorting=sorting,
    )


def some_sorting() -> Sorting:
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0], [0.4, 0.6, 0.0]])
    given = Sorted(
        classes=[HOSTILE, "b" * 80, "nobody"],
        positive_from=1,
        probabilities=probabilities,
        labels=torch.tensor([0, 1, 1, 0]),
    )
    return describe(given, lambda number: f"{HOSTILE}/{number}", {})


def test_names_are_text_and_never_markup() -> None:
    text = page(an_evaluation(some_sorting()), {2: b"a jpeg"})
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10
    assert "content=\"default-src 'none'" in text


def test_what_is_undefined_is_said_in_words() -> None:
    text = page(an_evaluation(some_sorting()), {})
    assert "No curve for nobody" in text
    assert "nan" not in text.lower().replace("nano", "")
    assert "bootstrap" not in text


def test_a_task_without_classes_has_its_metrics_only() -> None:
    text = page(an_evaluation(None), {})
    assert "<h2>Metrics</h2>" in text
    assert "<svg" not in text
    assert "Confusion" not in text


def test_every_colour_is_defined_for_light_and_for_dark() -> None:
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")[0], STYLE.split("}\n* {")[0].split("dark)")[1]
    used = set(re.findall(r"var\((--\w+)\)", STYLE)) - {"--share"}
    assert len(used) > 10
    for name in used:
        assert f"{name}:" in light, name
        assert f"{name}:" in dark, name


def test_text_can_be_read_on_its_paper() -> None:
    """WCAG 2.2 asks for a contrast of 4.5 for text (success criterion 1.4.3), 3 for lines (1.4.11)."""
    for theme in (STYLE.split("@media")[0], STYLE.split("dark)")[1].split("}\n* {")[0]):
        colours = dict(re.findall(r"(--\w+): (#[0-9a-f]+)", theme))
        least = {"--ink": 7.0, "--quiet": 4.5, "--bad": 4.5} | {f"--c{number}": 3.0 for number in range(7)}
        for name, wanted in least.items():
            assert _contrast(colours[name], colours["--paper"]) >= wanted, (name, colours)


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_run_that_diverged_is_told_as_its_history_holds_it() -> None:
    told = Recorded.of({"loss": None, "accuracy": 0.25}, {"loss": float("nan"), "accuracy": 0.25})
    assert told.equal
    assert not Recorded.of({"loss": None}, {"loss": 1.0}).equal
    other = Recorded.of({"loss": None, "accuracy": 0.25}, {"loss": 1.0, "accuracy": 0.5})
    assert "measured at this step, on its own machine: loss -, accuracy 0.25" in page(
        an_evaluation(None).but(recorded=other), {}
    )
