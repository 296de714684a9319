from __future__ import annotations

import random
from collections import Counter

from starling.trainer.data.patient_split import is_patient_wise, patient_numbers, patients_of, split_images
from starling.trainer.data.sources.found import FoundImage


def image(key: str, class_name: str = "0", *, patient: str | None = None, split: str | None = None) -> FoundImage:
    return FoundImage(class_name=class_name, key=key, patient=patient, split=split, read=lambda: b"")


def eyes(patients: int) -> list[FoundImage]:
    """Two of each patient, with the grades of EyePACS: the eyes of one patient often differ."""
    draw = random.Random(1)
    weights = [73, 7, 15, 2.5, 2]
    return [
        image(f"{patient}_{side}.jpeg", draw.choices("01234", weights)[0])
        for patient in range(patients)
        for side in ("left", "right")
    ]


def test_both_eyes_of_a_patient_are_in_one_split() -> None:
    split, patient_wise = split_images(eyes(300), 0.2)
    assert patient_wise
    sides = {(item.key.split("_")[0], item.split) for item in split}
    assert len(sides) == 300
    assert Counter(item.split for item in split) == {"train": 480, "val": 120}


def test_every_class_is_shared_out_as_patients_allow() -> None:
    split, _ = split_images(eyes(2000), 0.2)
    total = Counter(item.class_name for item in split)
    held_out = Counter(item.class_name for item in split if item.split == "val")
    assert all(abs(held_out[name] / total[name] - 0.2) < 0.03 for name in total), (held_out, total)


def test_a_patient_column_counts_whatever_the_names_are() -> None:
    images = [image(f"{number}.png", patient=f"p{number // 5}") for number in range(100)]
    split, patient_wise = split_images(images, 0.2)
    assert patient_wise
    assert len({(item.patient, item.split) for item in split}) == 20


def test_images_of_one_patient_have_one_number() -> None:
    named = [image(key) for key in ("0/17_left.jpeg", "3/17_right.png", "0/18-LEFT.jpeg", "x.png")]
    assert list(patient_numbers(named).values()) == [0, 0, 1, 2]
    told = [image("1_left.png", patient="p"), image("2_left.png", patient="p"), image("2_right.png")]
    assert list(patient_numbers(told).values()) == [1, 1, 0]


def test_a_few_names_that_end_like_eyes_mean_nothing() -> None:
    images = [image("turn_left.png"), image("turn_right.png"), *(image(f"{number}.png") for number in range(3))]
    assert patients_of(images)["turn_left.png"] == "turn_left.png"
    assert split_images(images)[1] is False


def test_the_fraction_is_kept_and_never_takes_a_whole_class() -> None:
    images = [
        image(f"{name}/{number}", name) for name, count in (("a", 50), ("b", 2), ("c", 1)) for number in range(count)
    ]
    held_out = Counter(item.class_name for item in split_images(images, 0.3)[0] if item.split == "val")
    assert held_out == {"a": 15, "b": 1}
    assert Counter(item.split for item in split_images(images, 0.0)[0]) == {"train": 53}
    assert Counter(item.class_name for item in split_images(images, 0.99)[0] if item.split == "train") == {
        "a": 1,
        "b": 1,
        "c": 1,
    }


def test_an_image_stays_in_its_split_when_others_of_other_classes_come() -> None:
    before = {item.key: item.split for item in split_images([image(f"a/{n}", "a") for n in range(40)])[0]}
    more = [image(f"a/{n}", "a") for n in range(40)] + [image(f"b/{n}", "b") for n in range(9)]
    assert before.items() <= {item.key: item.split for item in split_images(more)[0]}.items()


def test_splits_of_the_source_are_judged() -> None:
    together = [
        image(f"{n}_{side}.png", split="val" if n == 3 else "train") for n in range(4) for side in ("left", "right")
    ]
    assert is_patient_wise(together)
    torn = [image("9_left.png", split="train"), image("9_right.png", split="val")]
    assert not is_patient_wise(together + torn)
    assert not is_patient_wise([image("a.png", split="train"), image("b.png", split="val")])
