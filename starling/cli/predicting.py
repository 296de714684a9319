"""`predict`: what a run's model says about images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starling.cli.judging import check_choice, training_packages
from starling.cli.opening import OpenRun, store_for
from starling.cli.output import emit, note, say

if TYPE_CHECKING:
    from starling.trainer.judging.predicting import Prediction

UNREADABLE = 2
"""Exit code if an image could not be read."""


def predict_verb(
    run: str,
    places: list[str],
    store_uri: str | None,
    *,
    step: int | None,
    best: str | None,
    device: str,
    as_json: bool,
) -> int:
    """A line for every image, as soon as it is known; returns the exit code."""
    check_choice(device, step, best)
    store = store_for(store_uri)
    OpenRun(store, run)  # an unknown run is reported before torch is imported
    with training_packages():
        from starling.trainer.judging.checkpoints import Choice
        from starling.trainer.judging.loading import open_model
        from starling.trainer.judging.predicting import find_images, predict
    images = [image for place in places for image in find_images(place)]
    found: list[Prediction] = []
    with open_model(store, run, Choice(step=step, best=best), device=device, note=note) as loaded:
        if not as_json:
            note(f"model of {run} at step {loaded.manifest.step}")
        for prediction in predict(loaded, images):
            found.append(prediction)
            if not as_json:
                _print(prediction)
        taken = loaded.manifest.step
    if as_json:
        emit({"run": run, "step": taken, "images": [_as_json(each) for each in found]})
    failed = [each for each in found if each.error is not None]
    if failed:
        note(f"{len(failed)} of {len(found)} images could not be read")
    return UNREADABLE if failed else 0


def _print(prediction: Prediction) -> None:
    if prediction.probabilities is None:
        note(f"{prediction.path}: {prediction.error}")
        return
    all_of_them = "  ".join(f"{name}={value:.4f}" for name, value in prediction.probabilities.items())
    say(f"{prediction.path}  {prediction.class_name}  {all_of_them}")


def _as_json(prediction: Prediction) -> dict[str, Any]:
    told: dict[str, Any] = {"path": prediction.path, "class": prediction.class_name}
    if prediction.probabilities is None:
        return told | {"error": prediction.error}
    return told | {
        "probability": max(prediction.probabilities.values()),
        "probabilities": prediction.probabilities,
    }
