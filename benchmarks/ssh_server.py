"""An SSH server on loopback, for measurements over SSH where there is no other device."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from evaluators.target import Target

PROGRAM = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")


class SshServer:
    """A real SSH server on this machine, with keys and a port of its own, which lets the user who runs it in.

    Args:
        folder: An existing folder for all that it needs.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.log, self.cache = folder / "log", folder / "cache" / "nas-yolo" / "models"
        for name in ("host_key", "user_key"):
            self.make_key(name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # it insists
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nSetEnv XDG_CACHE_HOME={folder}/cache\n"
        )
        self.trust("host_key")
        (folder / "ssh_config").write_text(
            f"IdentityFile {folder}/user_key\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
        )
        user = pwd.getpwuid(os.getuid()).pw_name
        config = str(folder / "ssh_config")
        self.target = Target(
            "device", ssh=f"{user}@127.0.0.1", port=self.port, ssh_config=config, python=sys.executable
        )

    def make_key(self, name: str) -> None:
        """A new key pair in the folder."""
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)

    def trust(self, *names: str) -> None:
        """Make these the host keys that the client knows."""
        keys = [(self.folder / f"{name}.pub").read_text() for name in names]
        (self.folder / "known_hosts").write_text("".join(f"[127.0.0.1]:{self.port} {key}" for key in keys))

    def start(self) -> None:
        """Listen on loopback."""
        command = [str(PROGRAM), "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.log)]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def cut(self) -> None:
        """End all connections; what they started on the device goes on, if it wants to."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it may end meanwhile
                if process.name().startswith("sshd"):
                    process.kill()

    def stop(self) -> None:
        """End it and all connections."""
        if self.process.poll() is None:
            self.cut()
            self.process.kill()
            self.process.wait()
