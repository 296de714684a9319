#!/usr/bin/env python3
"""Stage 0 of a node's boot: this file, its CONFIG filled in, is the whole user data of an instance.

1. Who am I? The metadata service (IMDSv2) knows.
2. Fetch Starling's own archive from the store, check it, unpack it under ROOT.
3. Run stage 1 of it, which installs the rest and starts the agent.

If any of it fails, the store learns why, and the machine powers itself off.
Standard library only, Python 3.8 or later; writes nothing outside ROOT.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import json
import os
import select
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG: dict[str, str] = {}

ROOT = Path(os.environ.get("STARLING_ROOT") or "/opt/starling")
STAGE_1 = "starling.infra.bootstrap.install"
REPORTED = 3
"""Exit code of a stage that has told the store why it failed."""
SHUT_DOWN = "the machine was shut down while it booted"

POWEROFF = "shutdown -h now || systemctl poweroff --force --force"
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds between tries of a request: a fresh role is not known everywhere at once."""
TAG_SECONDS = 60.0
"""How long a tag or a role may take to appear in the metadata service."""
TIMEOUT_SECONDS = 20.0
BOOT_SECONDS = 780
"""For all of it; less than controllers wait for a node, so that they hear why."""

UNIT = (
    *("systemd-run", "--unit=starling-boot", "--collect", f"-pRuntimeMaxSec={BOOT_SECONDS + 180}"),
    # At a shutdown SIGTERM comes to us alone, and while the network is still up.
    *("-pKillMode=mixed", "-pAfter=network-online.target", "-pStandardOutput=journal+console"),
    "-pExecStopPost=/bin/sh -c 'test $SERVICE_RESULT = success || shutdown -h now'",
)
"""The boot as a service: whatever kills it, the machine goes off."""


class BootError(Exception):
    """Why this node cannot boot; written for the user."""


class Missing(BootError):
    """There is no such object in the store."""


def main() -> int:
    code = 1
    try:
        first = len(sys.argv) == 1 and not os.environ.get("STARLING_SERVICE")
        code = 0 if first and handed_over() else boot_up()
    finally:  # whatever happens: without an agent this machine serves nobody, and costs
        if code != 0:
            power_off()
    return code


def handed_over() -> bool:
    """Whether systemd has taken this script over from cloud-init, which does not watch what it runs."""
    try:
        return subprocess.call([*UNIT, sys.executable, os.path.abspath(__file__), "unit"]) == 0
    except OSError:
        return False  # no systemd: it boots here and now


def boot_up() -> int:
    """0 once the service has the node; else the store has been told why, if that can be."""
    give_up_at = time.monotonic() + BOOT_SECONDS
    ROOT.mkdir(parents=True, exist_ok=True)
    log = BootLog(ROOT)
    report: Report | None = None
    try:
        log.say(f"starling boots run {CONFIG['run']} from {CONFIG['store_uri']}")
        boot = identify(CONFIG)
        report = Report(boot, log)
        log.say(f"node {boot['node']} on {boot['instance_id']} at {boot['address']}")
        package = fetch_package(Bucket(boot), boot["package_sha256"], ROOT / "package")
        log.say(f"unpacked {package}")
        ended = run_stage_1(boot, package, give_up_at)
        if ended == 0:
            return 0
        if ended == -signal.SIGTERM:
            report.ended(SHUT_DOWN, unfit=False)
        elif ended != REPORTED:
            raise BootError(f"stage 1 ended with {ended}; the instance's console has its last words")
    except Exception as error:  # whatever it is
        log.say(f"cannot boot: {describe(error)}", "ERROR")
        if report is not None:
            report.ended(f"could not boot: {describe(error)}")
    return 1


def power_off() -> None:
    """STARLING_POWEROFF, a shell command, takes the place of the real thing."""
    subprocess.call(os.environ.get("STARLING_POWEROFF") or POWEROFF, shell=True)


def describe(error: Exception) -> str:
    return str(error) if isinstance(error, BootError) else f"{type(error).__name__}: {error}"


def identify(config: dict[str, str]) -> dict[str, str]:
    """The config, and what the metadata service knows about this machine. Raises BootError."""
    return {
        **config,
        "node": wait_for("meta-data/tags/instance/starling:node"),
        "instance_id": wait_for("meta-data/instance-id"),
        "address": wait_for("meta-data/local-ipv4"),
        "region": metadata("meta-data/placement/region") or config["region"],
        "booted_at": repr(time.time()),
    }


def wait_for(path: str, seconds: float = TAG_SECONDS) -> str:
    """A metadata document that may appear a little late. Raises BootError."""
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            if (found := metadata(path)) is not None:
                return found
            problem = "is not there"
        except (OSError, http.client.HTTPException) as error:
            problem = f"cannot be read: {error}"
        if time.monotonic() >= give_up_at:
            raise BootError(f"{path} of the metadata service {problem}, after {seconds:.0f} s")
        time.sleep(1.0)


def metadata(path: str) -> str | None:
    """A document of the instance metadata service, version 2; None if there is none. Raises OSError."""
    endpoint = (os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254").rstrip("/")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    status, token = exchange(direct, "PUT", f"{endpoint}/latest/api/token", lifetime, timeout=2.0)
    if status == 200:
        session = {"X-aws-ec2-metadata-token": token.decode()}
        status, body = exchange(direct, "GET", f"{endpoint}/latest/{path}", session, timeout=2.0)
        if status in (200, 404):
            return body.decode() if status == 200 else None
    raise OSError(f"{endpoint} answered {status}")


def role_credentials() -> dict[str, str]:
    """AccessKeyId, SecretAccessKey and Token of the instance's role. Raises BootError."""
    roles = "meta-data/iam/security-credentials/"
    found: dict[str, str] = json.loads(wait_for(roles + wait_for(roles).split()[0]))
    if "AccessKeyId" not in found:
        raise BootError(f"the instance's role has no credentials: {found.get('Message') or found}")
    return found


class Bucket:
    """Objects of the store on S3, by signed requests."""

    def __init__(self, boot: dict[str, str], credentials: Callable[[], dict[str, str]] = role_credentials) -> None:
        uri = urllib.parse.urlsplit(boot["store_uri"])
        options = dict(urllib.parse.parse_qsl(uri.query))
        self.region = options.get("region") or boot["region"]
        given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self.base = bucket_url(uri.netloc, self.region, options.get("endpoint_url") or given)
        self.prefix = uri.path.strip("/")
        self._credentials = credentials

    def get(self, key: str) -> bytes:
        """Raises Missing, BootError."""
        return self._send("GET", key, b"")

    def put(self, key: str, data: bytes) -> None:
        """Raises BootError."""
        self._send("PUT", key, data)

    def _send(self, method: str, key: str, data: bytes) -> bytes:
        path = urllib.parse.quote(f"{self.prefix}/{key}".lstrip("/"), safe="/-_.~")
        url, said = f"{self.base}/{path}", ""
        for pause in (0.0, *PAUSES):
            time.sleep(pause)
            try:
                at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                headers = signed(method, url, data, self.region, self._credentials(), at)
                status, body = exchange(urllib.request.build_opener(), method, url, headers, data or None)
            except (OSError, http.client.HTTPException) as error:
                said = str(error)
                continue
            if status == 200:
                return body
            if status == 404:
                raise Missing(f"{key} is not in the store ({url})")
            said = f"{status} {body[:300].decode(errors='replace')}"
        raise BootError(f"the store cannot be used: {method} {url}: {said}")


def bucket_url(bucket: str, region: str, endpoint: str | None) -> str:
    if endpoint:  # servers other than AWS rarely have a host name for each bucket
        return f"{endpoint.rstrip('/')}/{bucket}"
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    if "." in bucket:  # no certificate covers such a host name
        return f"https://s3.{region}.{domain}/{bucket}"
    return f"https://{bucket}.s3.{region}.{domain}"


def signed(method: str, url: str, data: bytes, region: str, credentials: dict[str, str], at: str) -> dict[str, str]:
    """The headers of a request to S3, signed by Signature Version 4; `at`: like 20260131T235959Z."""
    parts = urllib.parse.urlsplit(url)
    headers = {"host": parts.netloc, "x-amz-content-sha256": hashlib.sha256(data).hexdigest(), "x-amz-date": at}
    if credentials.get("Token"):
        headers["x-amz-security-token"] = credentials["Token"]
    names, lines = ";".join(sorted(headers)), [f"{name}:{headers[name]}" for name in sorted(headers)]
    request = "\n".join([method, parts.path, parts.query, *lines, "", names, headers["x-amz-content-sha256"]])
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    key = ("AWS4" + credentials["SecretAccessKey"]).encode()
    for part in [*scope.split("/"), "\n".join(["AWS4-HMAC-SHA256", at, scope, _sha256(request)])]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    who = f"Credential={credentials['AccessKeyId']}/{scope}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {who}, SignedHeaders={names}, Signature={key.hex()}"}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def exchange(
    opener: urllib.request.OpenerDirector,
    method: str,
    url: str,
    headers: dict[str, str],
    data: bytes | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> tuple[int, bytes]:
    """Status and body of one HTTP exchange; every status is an answer. Raises OSError, HTTPException."""
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def fetch_package(bucket: Bucket, sha256: str, packages: Path) -> Path:
    """The folder with the archive of this hash unpacked, downloaded if need be. Raises BootError."""
    folder = packages / sha256
    if folder.is_dir():
        return folder
    data = bucket.get(f"code/{sha256}.tar.gz")
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise BootError(f"code/{sha256}.tar.gz is damaged: its SHA-256 is {found}")
    aside = packages / f".{sha256}-{os.getpid()}"
    unpack(data, aside)
    aside.rename(folder)
    return folder


def unpack(data: bytes, folder: Path) -> None:
    """Plain files and folders that stay below `folder`; raises BootError for anything else."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or member.name.startswith("/") or ".." in member.name.split("/"):
                raise BootError(f"the archive holds {member.name!r}, which is no plain file below its folder")
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def run_stage_1(boot: dict[str, str], package: Path, give_up_at: float) -> int:
    """Run it to its end and return its exit code. It becomes the agent: SIGTERM is its.

    Raises BootError if it is not the service by then, which it tells by closing a pipe.
    """
    waiting, booting = os.pipe()
    environment = {
        **os.environ,
        "STARLING_ROOT": str(ROOT),
        "STARLING_BOOT": json.dumps(boot),
        "STARLING_NODE": boot["node"],
        "STARLING_BOOTING": str(booting),
        "PYTHONPATH": os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", STAGE_1]
    process = subprocess.Popen(command, cwd=str(ROOT), env=environment, stdin=subprocess.DEVNULL, pass_fds=[booting])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    os.close(booting)
    over, _, _ = select.select([waiting], [], [], max(give_up_at - time.monotonic(), 0.0))
    os.close(waiting)
    if not over:
        process.kill()  # no wait: what hangs in a driver or a disk cannot be killed
        raise BootError(f"the boot took longer than {BOOT_SECONDS} s")
    return process.wait()


class BootLog:
    """Lines of the boot, in a file of all stages and on the console; shipped to the store in chunks."""

    def __init__(self, root: Path) -> None:
        self._file, self._sent = root / "boot.log", root / "boot.sent"

    def say(self, text: str, level: str = "INFO") -> None:
        now = time.time()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = f"{moment}.{int(now * 1000) % 1000:03d}Z {level} starling.boot: {text}"
        print(line, flush=True)
        try:
            with self._file.open("a") as file:
                file.write(line + "\n")
        except OSError as error:  # a full disk, say
            print(f"{self._file}: {error}", flush=True)

    def ship(self, put: Callable[[str, bytes], None], prefix: str) -> None:
        """Put what is new as one more chunk; the agent's own chunks follow. Raises BootError."""
        chunks, size = json.loads(self._sent.read_text()) if self._sent.exists() else (0, 0)
        new = self._file.read_bytes()[size:]
        if new:
            put(f"{prefix}{chunks:08d}-boot.log", new)
            self._sent.write_text(json.dumps([chunks + 1, size + len(new)]))


class Report:
    """What the store is told about a boot."""

    def __init__(self, boot: dict[str, str], log: BootLog) -> None:
        self._boot, self._log, self._bucket = boot, log, Bucket(boot)

    def ship_log(self) -> None:
        """Raises BootError."""
        self._log.ship(self._bucket.put, f"runs/{self._boot['run']}/logs/{self._boot['node']}/")

    def ended(self, reason: str, *, unfit: bool = True, **more: Any) -> None:
        """The node's last words: its log, then a status, with `more` in it; `unfit`: the same awaits others."""
        status = json.dumps({**self._status(reason, unfit), **more}).encode()
        for tell in (self.ship_log, lambda: self._bucket.put(f"nodes/{self._boot['node']}/status.json", status)):
            try:
                tell()
            except (BootError, OSError) as error:  # only the console is left
                self._log.say(f"the store took no last words: {error}", "ERROR")

    def _status(self, reason: str, unfit: bool) -> dict[str, Any]:
        """A `records.NodeStatus`."""
        facts = {name: self._boot[name] for name in ("node", "run", "address", "instance_id")}
        now, booted_at = time.time(), float(self._boot["booted_at"])
        ended = {"at": now, "reason": reason}
        return {
            **facts,
            "state": "ended",
            "at": now,
            "booted_at": booted_at,
            "ended": ended,
            "unfit": reason if unfit else None,
        }


if __name__ == "__main__":
    sys.exit(main())
