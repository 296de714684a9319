"""The built-in task for ordered classes: classification into grades, or into groups of grades."""

from __future__ import annotations

from functools import cached_property

import torch

from starling.trainer.metrics.summary import GRADING_METRICS, summarise_grading
from starling.trainer.tasks.classification import ClassificationTask
from starling.trainer.tasks.grades import Grouping, group
from starling.trainer.tasks.options import GradingOptions


class GradingTask(ClassificationTask):
    """Classification whose classes are made of the dataset's grades, judged with their order in mind."""

    name = "grading"
    options_type = GradingOptions
    metric_names = GRADING_METRICS

    @property
    def class_names(self) -> list[str]:
        return self._grouping.names

    @property
    def positive_from(self) -> int:
        """The first class that counts as positive."""
        return self._grouping.positive_from

    @cached_property
    def _grouping(self) -> Grouping:
        options = self._options
        return group(
            self.index.classes,
            classes=options.classes,
            groups=options.groups,
            positive_from=options.positive_from,
        )

    def _metrics(self, probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        return summarise_grading(probabilities, labels, self.positive_from)

    def _class_of(self) -> dict[int, int]:
        return self._grouping.class_of
