"""Is the host the one we know? Its key must be in known_hosts; nothing is ever added there by us."""

from __future__ import annotations

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from starling.infra.errors import Misconfigured
from starling.infra.providers.ssh.hosts import SSH_PORT, Target

_SIGNED_AS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""The algorithms that a key of this kind in known_hosts stands for."""


class HostKeyRefused(Misconfigured):
    """The host could be anybody's."""


def trusted_keys(target: Target) -> list[paramiko.PKey]:
    """The keys that known_hosts has for this host."""
    entries = (_entry(line) for line in _lines(target) if not line.startswith(("@", "#")))
    return [entry.key for entry in entries if entry is not None and entry.key is not None and _is_for(entry, target)]


def preferred_algorithms(trusted: list[paramiko.PKey], offered: list[str]) -> list[str]:
    """All that we speak, those first by which the host can prove that it has a key we know."""
    names = [name for key in trusted for name in _SIGNED_AS.get(key.get_name(), (key.get_name(),))]
    first = [name for name in names if name in offered]
    return [*dict.fromkeys(first), *(name for name in offered if name not in first)]


def check(target: Target, presented: paramiko.PKey, trusted: list[paramiko.PKey]) -> None:
    """Raises HostKeyRefused unless the host's key is one that known_hosts has for it, and that nobody revoked."""
    if _revoked(target, presented):
        raise HostKeyRefused(f"{_who(target)} shows a key that is revoked in {_files(target)}: {_named(presented)}")
    if presented in trusted:
        return
    if not trusted:
        raise HostKeyRefused(_unknown(target, presented))
    raise HostKeyRefused(_changed(target, presented, trusted))


def _unknown(target: Target, presented: paramiko.PKey) -> str:
    kind = presented.get_name().removeprefix("ssh-").partition("-")[0]
    return (
        f"{_who(target)} is not in {_files(target)}, so it could be anybody's machine. It shows {_named(presented)}.\n"
        f"On the host itself `ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub` prints the right one; if they are equal,"
        f" add it here with `{_scan(target)}`"
    )


def _changed(target: Target, presented: paramiko.PKey, trusted: list[paramiko.PKey]) -> str:
    known = ", ".join(_named(key) for key in trusted)
    return (
        f"{_who(target)} shows another key than the one in {_files(target)}: either it was installed anew, or somebody"
        f" stands between you and it. It shows {_named(presented)}; known is {known}.\n"
        f"If you know why it changed: `ssh-keygen -R '{target.known_as}' -f {_first_file(target)}`, then"
        f" `{_scan(target)}`"
    )


def _who(target: Target) -> str:
    return f"host {target.host.name} ({target.known_as})"


def _named(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _files(target: Target) -> str:
    return " and ".join(str(path) for path in target.known_hosts) or "~/.ssh/known_hosts (there is no such file)"


def _first_file(target: Target) -> str:
    return str(target.known_hosts[0]) if target.known_hosts else "~/.ssh/known_hosts"


def _scan(target: Target) -> str:
    port = "" if target.port == SSH_PORT else f"-p {target.port} "
    return f"ssh-keyscan {port}{target.hostname} >> {_first_file(target)}"


def _revoked(target: Target, key: paramiko.PKey) -> bool:
    return any(line.startswith("@revoked") and key.get_base64() in line.split() for line in _lines(target))


def _lines(target: Target) -> list[str]:
    return [line.strip() for path in target.known_hosts for line in path.read_text(errors="replace").splitlines()]


def _entry(line: str) -> HostKeyEntry | None:
    """None for what is no entry, or one of a kind that we do not speak."""
    try:
        return HostKeyEntry.from_line(line)
    except InvalidHostKey:
        return None  # as ssh does: a damaged line trusts nobody


def _is_for(entry: HostKeyEntry, target: Target) -> bool:
    known = paramiko.HostKeys()
    for name in entry.hostnames or ():
        known.add(name, entry.key.get_name(), entry.key)
    return known.lookup(target.known_as) is not None
