"""May what a script left in its folder be relied on, or is it perhaps half written? Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How the processes of a script ended on one node, and what its folder did meanwhile.

    "The end" begins with the look at the folder just before SIGTERM is sent, or just after the first process ended or
    a peer was lost.
    """

    asked: bool
    """They were sent SIGTERM, and none of them had failed by itself before."""
    exit_codes: tuple[int | None, ...]
    """Of every process; negative: ended by that signal; None: still ran when its time was over, and was killed."""
    quiet: float | None
    """Seconds between the newest change in the folder (logs do not count) and the beginning of the end; None: the
    folder holds nothing."""
    written_before: str | None
    """A file of the folder (no log) that was open for writing when the end began."""
    written_last: str | None
    """A file of the folder (no log) that was open for writing when what was left of the script was killed."""
    changed: str | None
    """A path (no log) that differs between the beginning of the end and now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    trusted: bool
    reason: str


def judge(ending: Ending, rest: float) -> Trust:
    """Whether the folder is whole.

    It is if every process ended by itself (on SIGTERM with any exit code, otherwise with 0: a script that fails may
    do so in the middle of saving), or if nothing in it had changed for `rest` seconds (see rhythm.py) when the end
    began, and nothing has since.
    """
    if ending.quiet is None and ending.changed is None:
        return Trust(trusted=False, reason="the folder holds nothing")
    if ending.written_last is not None:
        return _no(f"{ending.written_last} was being written when its process was killed")
    if all(_by_itself(code, asked=ending.asked) for code in ending.exit_codes):
        return Trust(trusted=True, reason="every process ended by itself")
    how = _describe(ending)
    if ending.changed is not None:
        return _no(f"{how}, and {ending.changed} changed meanwhile")
    if ending.written_before is not None:
        return _no(f"{how}, and {ending.written_before} was being written")
    assert ending.quiet is not None
    if ending.quiet < rest:
        return _no(f"{how}, {max(ending.quiet, 0.0):.1f} s after something in the folder changed")
    return Trust(trusted=True, reason=f"{how}, but nothing in the folder had changed for {ending.quiet:.1f} s")


def _no(reason: str) -> Trust:
    return Trust(trusted=False, reason=reason)


def _by_itself(code: int | None, *, asked: bool) -> bool:
    return code is not None and (code >= 0 if asked else code == 0)


def _describe(ending: Ending) -> str:
    if None in ending.exit_codes:
        return "a process of the script had to be killed"
    code = next(code for code in ending.exit_codes if not _by_itself(code, asked=ending.asked))
    assert code is not None
    return (
        f"a process of the script was ended by signal {-code}" if code < 0 else f"the script failed (exit code {code})"
    )
