"""What a script left in its folder counts only if it cannot be half written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from starling.trainer.script.trust import Ending, judge

REST = 2.0
WELL = Ending(asked=True, exit_codes=(0, 143), quiet=0.1, written_before=None, written_last=None, changed="step-9.pt")
"""SIGTERM was heard while the folder was busy; the script saved once more and went."""
KILLED = replace(WELL, exit_codes=(0, None), changed=None, quiet=30.0)
"""It did not go; but nothing had been written for half a minute."""


@pytest.mark.parametrize(
    ("ending", "trusted", "why"),
    [
        (WELL, True, "ended by itself"),
        (replace(WELL, written_before="step-9.pt"), True, "ended by itself"),
        (replace(WELL, written_last="step-9.pt"), False, "step-9.pt was being written when its process was killed"),
        (replace(WELL, exit_codes=(0, -15)), False, "ended by signal 15, and step-9.pt changed meanwhile"),
        (KILLED, True, "nothing in the folder had changed for 30.0 s"),
        (replace(KILLED, exit_codes=(-15, -15)), True, "ended by signal 15, but nothing"),
        (replace(KILLED, changed="a"), False, "had to be killed, and a changed meanwhile"),
        (replace(KILLED, written_before="a"), False, "and a was being written"),
        (replace(KILLED, quiet=1.9), False, "1.9 s after something in the folder changed"),
        (replace(KILLED, quiet=-0.1), False, "0.0 s after something in the folder changed"),
        (replace(KILLED, quiet=2.0), True, "2.0 s"),
        # Not asked: the round broke, or the script failed.
        (replace(WELL, asked=False, exit_codes=(0, 0)), True, "ended by itself"),
        (replace(WELL, asked=False, exit_codes=(0, 1)), False, "the script failed (exit code 1)"),
        (replace(KILLED, asked=False, exit_codes=(1,)), True, "the script failed (exit code 1), but nothing"),
        (replace(KILLED, asked=False, exit_codes=(1,), quiet=0.5), False, "0.5 s after something"),
        # Nothing is there to be relied on.
        (replace(WELL, quiet=None, changed=None), False, "holds nothing"),
        (replace(KILLED, quiet=None, changed=None, exit_codes=(None,)), False, "holds nothing"),
    ],
)
def test_a_folder_is_relied_on_only_if_it_is_whole(ending: Ending, trusted: bool, why: str) -> None:
    trust = judge(ending, REST)
    assert trust.trusted is trusted
    assert why in trust.reason
