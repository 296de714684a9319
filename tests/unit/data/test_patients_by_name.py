from __future__ import annotations

from starling.trainer.data.patient_split import patients_by_name


def test_both_eyes_are_of_one_patient_whatever_folder_they_are_in() -> None:
    assert patients_by_name(["0/17_left.jpeg", "3/17_right.png", "0/18-LEFT.jpeg"]) == ["17", "17", "18"]


def test_an_image_that_names_no_eye_stands_for_itself() -> None:
    assert patients_by_name(["1_left.png", "1_right.png", "a/x.png"]) == ["1", "1", "a/x.png"]


def test_a_few_such_names_are_chance() -> None:
    assert patients_by_name(["turn_left.png", "stop.png", "go.png"]) is None
    assert patients_by_name(["a.png"]) is None
