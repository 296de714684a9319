"""Two kinds of real ssh server on a free loopback port: paramiko's server side, which is always there, and OpenSSH's
sshd where it is installed. Both log in by key, run real commands and serve real files (SFTP)."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import paramiko
import psutil

from tests.support.ports import hold_a_port, port_of
from tests.support.sftp_server import RealFiles

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")


class SshServer(Protocol):
    """One host: an ssh server whose commands run with a home of their own."""

    port: int
    home: Path

    def start(self) -> None:
        """Begin to serve, on the same port as before."""
        ...

    def stop(self) -> None:
        """Go away, connections included; what runs on the host goes on."""
        ...

    def drop_connections(self) -> None:
        """Cut every connection; new ones are served."""
        ...

    def close(self) -> None:
        """Stop for good, and let the port go."""
        ...

    def renew_key(self) -> None:
        """Have another host key, as after a new installation."""
        ...

    @property
    def host_key(self) -> str:
        """The line for known_hosts, without the host."""
        ...


def make_key(path: Path) -> Path:
    """A private key, and its public one beside it with `.pub`."""
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    if shutil.which("ssh-keygen"):
        subprocess.run(command, check=True)
    else:
        key = paramiko.RSAKey.generate(2048)
        key.write_private_key_file(str(path))
        path.with_name(path.name + ".pub").write_text(f"{key.get_name()} {key.get_base64()}\n")
    return path


def public_key(path: Path) -> str:
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


class ParamikoServer:
    """paramiko's server side, in threads of this process; each command is a real process in a session of its own."""

    def __init__(self, folder: Path, home: Path, authorised: str, environment: dict[str, str]) -> None:
        self.home = home
        self._held = hold_a_port()
        self.port = port_of(self._held)
        self.environment = {**environment, "HOME": str(home), "USER": getpass.getuser()}
        self.authorised = authorised
        self._key = make_key(folder / "host_key")
        self._listener: socket.socket | None = None
        self._transports: list[paramiko.Transport] = []

    @property
    def host_key(self) -> str:
        return public_key(self._key)

    def renew_key(self) -> None:
        make_key(self._key)

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        listener.settimeout(0.1)
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, args=(listener,), name="sshd", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._thread.join()
            listener.close()
        self.drop_connections()

    def close(self) -> None:
        self.stop()
        self._held.close()

    def drop_connections(self) -> None:
        for transport in self._transports:
            transport.close()
        self._transports = []

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            transport = paramiko.Transport(client)
            transport.add_server_key(paramiko.PKey.from_path(self._key))
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, RealFiles, self.home)
            self._transports.append(transport)
            with suppress(paramiko.SSHException, EOFError):  # the client's affair
                transport.start_server(threading.Event(), _Session(self))


class _Session(paramiko.ServerInterface):
    def __init__(self, server: ParamikoServer) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = f"{key.get_name()} {key.get_base64()}" == self._server.authorised and username == getpass.getuser()
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command.decode()],
            cwd=self._server.home,
            env=self._server.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=_serve, args=(process, channel), daemon=True).start()
        return True


def _serve(process: subprocess.Popen[bytes], channel: paramiko.Channel) -> None:
    """As sshd: pass bytes on until both outputs end; a client that hangs up ends nothing but its input."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    pumps = [
        threading.Thread(target=_pump, args=(process.stdout, channel.sendall), daemon=True),
        threading.Thread(target=_pump, args=(process.stderr, channel.sendall_stderr), daemon=True),
    ]
    feeder = threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True)
    for thread in (*pumps, feeder):
        thread.start()
    status = process.wait()
    for pump in pumps:
        pump.join()
    # The client sends (at least the end of) its input once it was told that the command runs: an end told before
    # that looks like a refusal to it. sshd tells in this order by itself; here two threads talk.
    feeder.join()
    with suppress(OSError, EOFError):
        channel.send_exit_status(status)
        channel.close()


def _pump(source: object, send: object) -> None:
    with source, suppress(OSError):  # type: ignore[attr-defined]
        while chunk := source.read1(1 << 15):  # type: ignore[attr-defined]
            send(chunk)  # type: ignore[operator]


def _feed(channel: paramiko.Channel, sink: object) -> None:
    with suppress(OSError), sink:  # type: ignore[attr-defined]
        while chunk := channel.recv(1 << 15):
            sink.write(chunk)  # type: ignore[attr-defined]
            sink.flush()  # type: ignore[attr-defined]


class OpenSshServer:
    """OpenSSH's own sshd, as this user."""

    def __init__(self, folder: Path, home: Path, authorised: str, environment: dict[str, str]) -> None:
        self.home = home
        self._held = hold_a_port()
        self.port = port_of(self._held)
        self._folder = folder
        self._key = make_key(folder / "host_key")
        (folder / "authorised_keys").write_text(authorised + "\n")
        settings = {**environment, "HOME": str(home)}
        self._config = folder / "sshd_config"
        self._config.write_text(
            "\n".join(
                [
                    "ListenAddress 127.0.0.1",
                    f"Port {self.port}",
                    f"HostKey {self._key}",
                    f"AuthorizedKeysFile {folder / 'authorised_keys'}",
                    f"PidFile {folder / 'sshd.pid'}",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "SetEnv " + " ".join(f'"{name}={value}"' for name, value in settings.items()),
                    f"Subsystem sftp {next(filter(os.path.exists, SFTP_SERVERS), 'internal-sftp')}",
                    "",
                ]
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host_key(self) -> str:
        return public_key(self._key)

    def renew_key(self) -> None:
        make_key(self._key)

    def start(self) -> None:
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before a login
        with (self._folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        give_up_at = time.monotonic() + 60
        while not self._listens():
            assert self._process.poll() is None, self._words()
            assert time.monotonic() < give_up_at, self._words()
            time.sleep(0.05)

    def stop(self) -> None:
        self.drop_connections()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        self.stop()
        self._held.close()

    def drop_connections(self) -> None:
        """Each connection has processes of its own, called sshd as well; the commands that they run are not."""
        if self._process is None:
            return
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.send_signal(signal.SIGKILL)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _words(self) -> str:
        return (self._folder / "sshd.log").read_text()


SERVERS: dict[str, type[ParamikoServer] | type[OpenSshServer]] = {
    "paramiko": ParamikoServer,
    **({"openssh": OpenSshServer} if SSHD else {}),
}
