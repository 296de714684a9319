"""Which of a dataset's classes are one class of a grading task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starling.infra.errors import UsageError

GROUPS = {
    5: [[0], [1], [2], [3], [4]],
    3: [[0], [1, 2], [3, 4]],
    2: [[0, 1], [2, 3, 4]],
}
"""Of the five grades of diabetic retinopathy (none, mild, moderate, severe, proliferative): each by itself; none, mild
or moderate, severe or proliferative; not referable, referable (from moderate on)."""
REFERABLE = 2
"""The lowest grade that is referred."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouping:
    """Dataset classes -> ordered classes of the task."""

    class_of: dict[int, int]
    """Label in the dataset -> class."""
    names: list[str]
    """Of the classes."""
    positive_from: int
    """The first class that counts as positive."""


def group(
    names: Sequence[str],
    *,
    classes: int | None = None,
    groups: list[list[int]] | None = None,
    positive_from: int | None = None,
) -> Grouping:
    """How the classes of a dataset, called `names`, are graded (docs/tasks.md). UsageError if they cannot be so."""
    if len(names) < 2:
        raise UsageError(f"task grading: needs two grades or more, and the dataset has one class ({names[0]})")
    grades = _grades(names)
    chosen = groups if groups is not None else _groups(grades, classes)
    _check(chosen, grades, names)
    of_grade = {grade: number for number, members in enumerate(chosen) for grade in members}
    first = _positive_from(chosen) if positive_from is None else positive_from
    if first >= len(chosen):
        raise UsageError(f"task.options.positive_from: {first} is no class of 0 to {len(chosen) - 1}")
    return Grouping(
        class_of={label: of_grade[grade] for label, grade in enumerate(grades)},
        names=[_name(members, grades, names) for members in chosen],
        positive_from=first,
    )


def _grades(names: Sequence[str]) -> list[int]:
    """Of each dataset class: the number it is called by, else its place."""
    if all(name.isdecimal() for name in names) and len({int(name) for name in names}) == len(names):
        return [int(name) for name in names]
    return list(range(len(names)))


def _groups(grades: list[int], classes: int | None) -> list[list[int]]:
    if classes is None:
        return [[grade] for grade in sorted(grades)]
    if max(grades) >= len(GROUPS[5]):
        raise UsageError(
            f"task.options.classes: {classes} classes are made of five grades, 0 to 4, but the dataset's go up to "
            f"{max(grades)}; use groups instead"
        )
    if classes > len(grades):
        raise UsageError(
            f"task.options.classes: the dataset has only {len(grades)} classes, which cannot be {classes}; drop it"
        )
    return GROUPS[classes]


def _check(groups: list[list[int]], grades: list[int], names: Sequence[str]) -> None:
    listed = [grade for members in groups for grade in members]
    there = f"the dataset's grades are {', '.join(map(str, sorted(grades)))} (its classes: {', '.join(names)})"
    if len(groups) < 2 or not all(groups):
        raise UsageError(
            "task.options.groups: needs at least two groups, none of them empty, such as [[0, 1], [2, 3, 4]]"
        )
    if twice := sorted({grade for grade in listed if listed.count(grade) > 1}):
        raise UsageError(f"task.options.groups: grade {twice[0]} is in two groups")
    if missing := sorted(set(grades) - set(listed)):
        raise UsageError(f"task.options.groups: grade {missing[0]} is in no group; {there}")


def _positive_from(groups: list[list[int]]) -> int:
    referable = (number for number, members in enumerate(groups) if number and min(members) >= REFERABLE)
    return next(referable, 1)


def _name(members: list[int], grades: list[int], names: Sequence[str]) -> str:
    known = [names[grades.index(grade)] if grade in grades else str(grade) for grade in members]
    in_a_row = members == list(range(members[0], members[0] + len(members)))
    return f"{known[0]}-{known[-1]}" if len(known) > 2 and in_a_row else "+".join(known)
