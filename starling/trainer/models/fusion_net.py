"""Two trained networks, frozen, and a small one over both that learns how far to believe them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from starling.trainer.models.sight import Sight
from starling.trainer.models.tile_detector import TileDetector

SUSPICIOUS = 0.5
"""Probability from which on a place of the lesion map counts as one."""
TOP_SHARE = 0.01
"""The most suspicious places whose mean is a feature."""


class FusionNet(nn.Module):
    """Main network and lesion detector look at the same image, each as it was trained to; a small network weighs both.

    Only the small network is part of the state: the two others are rebuilt from their own runs, have no gradients and
    stay in evaluation mode. They move to a device together with the rest.
    """

    def __init__(
        self,
        main: nn.Module,
        main_sight: Sight,
        detector: TileDetector,
        detector_sight: Sight,
        *,
        num_classes: int,
        hidden: int = 64,
        grid: int = 4,
        dropout: float = 0.2,
    ) -> None:
        """`grid`: the lesion map is summed up in grid x grid fields."""
        super().__init__()
        last = _last_linear(main)
        self._frozen = (main, detector)  # in a tuple: no submodules, so not in the state, and never set to training
        self._sights = (main_sight, detector_sight)
        self._grid = grid
        self._seen: list[torch.Tensor] = []
        last.register_forward_pre_hook(lambda module, inputs: self._seen.append(inputs[0]))
        self.norm = nn.LayerNorm(last.in_features)
        features = last.in_features + last.out_features + 2 * grid * grid + 4
        self.mix = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [b, channels, height, width], black 0 and white 1 -> logits [b, num_classes]."""
        with torch.no_grad():
            features, logits = self._of_main(images)
            lesions = self._of_lesions(self.lesion_map(images))
        mixed = self.mix(torch.cat([self.norm(features), logits.float(), lesions], dim=1))
        return self.classifier(mixed)  # type: ignore[no-any-return]

    @torch.no_grad()
    def lesion_map(self, images: torch.Tensor) -> torch.Tensor:
        """The detector's probability at every place of the image, [b, 1, height / stride, width / stride]."""
        detector = self._frozen[1]
        assert isinstance(detector, TileDetector)
        return detector.probability_map(self._sights[1].of(images)).float()

    def _of_main(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the main network's last layer gets and gives: [b, features], [b, classes]."""
        self._seen.clear()
        logits = self._frozen[0](self._sights[0].of(images))
        features = self._seen.pop().float()
        return features, logits

    def _of_lesions(self, lesions: torch.Tensor) -> torch.Tensor:
        """[b, 2 * grid * grid + 4]: mean and maximum of every field; then mean, maximum, suspicious share, and the mean
        of the most suspicious places of the whole map."""
        fields = [
            functional.adaptive_avg_pool2d(lesions, self._grid).flatten(1),
            functional.adaptive_max_pool2d(lesions, self._grid).flatten(1),
        ]
        places = lesions.flatten(1)
        top = places.topk(max(1, round(TOP_SHARE * places.shape[1])), dim=1).values.mean(dim=1)
        suspicious = (places > SUSPICIOUS).float().mean(dim=1)
        whole = [places.mean(dim=1), places.amax(dim=1), suspicious, top]
        return torch.cat([*fields, torch.stack(whole, dim=1)], dim=1)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> FusionNet:
        for network in self._frozen:
            network._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _last_linear(model: nn.Module) -> nn.Linear:
    """The layer that makes logits. ValueError if there is none."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError("it has no linear layer at its end, so there are no features to take over")
    return layers[-1]
