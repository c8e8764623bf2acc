"""A scripted QEMU: speaks QMP, prints on the console, and lives and dies as the file given as -kernel says.

That file is JSON: {"acts": [...], "replies": [...]}, or {"kvm": {...}, "tcg": {...}} to act by accelerator. Anything
else stands for a kernel that boots and answers SSH. Acts, in order, once QMP said `cont`:

    ["console", text]  ["channel", text]  ["garbage", n]  ["flood", n]   output; n in bytes
    ["sleep", seconds]  ["hang"]                                         time
    ["ready"]                                                            init's marks, up to ready
    ["ssh"]  ["deaf"]                   answer SSH with the keys of the initrd; accept connections and say nothing
    ["panic"]  ["poweroff"]  ["freeze"]                                  what the guest or the host does to it
    ["schedule"]                        print how the threads that stand for vCPUs are scheduled just now
    ["exit", status]  ["signal", number]                                 QEMU dies

Before QMP answers: {"stderr": text, "status": n} ends at once (negative: by a signal). A spec without `acts` but with
"spin": true never does anything, not even QMP.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PANIC = (
    "[    9.000000][    T1] Kernel panic - not syncing: sysrq triggered crash\n"
    "[    9.000001][    T1] CPU: 0 UID: 0 PID: 1 Comm: sh Not tainted 6.12.0 #1\n"
    "[    9.000002][    T1] Kernel Offset: disabled\n"
)
BOOT = "[    0.000000][    T0] Linux version 6.12.0-fake\n[    1.000000][    T1] Run /init as init process\n"
READY = "".join(f"rig: stage {name}\r\n" for name in ("mount", "network", "machine", "sshd")) + "rig: ready\r\n"
DEFAULT: dict[str, Any] = {"acts": [["console", BOOT], ["ready"], ["ssh"], ["hang"]]}


def install(folder: Path, *, plugins: bool = False) -> Path:
    """Write `qemu-system-x86_64` into `folder`, to be put first on PATH.

    With `plugins` it takes the option -plugin, and loads none; else it refuses it, as a build without them does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "qemu-system-x86_64"
    word = " --plugins" if plugins else ""
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}"{word} "$@"\n')
    program.chmod(0o755)
    return program


def initrd_files(path: Path) -> dict[str, bytes]:
    """The regular files in a cpio archive (newc), later members over earlier ones; empty for anything else."""
    data, files, at = path.read_bytes(), {}, 0
    while at + 110 <= len(data):
        if data[at : at + 6] != b"070701":
            at += 4  # padding between archives
            continue
        mode, size, name_size = (int(data[at + off : at + off + 8], 16) for off in (14, 54, 94))
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        body = (at + 110 + name_size + 3) & ~3
        if stat.S_ISREG(mode):
            files[name] = data[body : body + size]
        at = (body + size + 3) & ~3
    return files


class Machine:
    """The arguments, the channels, and what the script does with them."""

    def __init__(self, argv: list[str]) -> None:
        self.values: dict[str, list[str]] = {}
        for name, value in zip(argv, [*argv[1:], ""], strict=True):
            if name.startswith("-"):
                self.values.setdefault(name, []).append(value)
        self.accelerator = self.values["-accel"][0].split(",")[0]
        try:
            script = json.loads(Path(self.values["-kernel"][0]).read_text())
        except ValueError:
            script = DEFAULT
        self.script: dict[str, Any] = script.get(self.accelerator, script)
        self.bare = "rig.bare" in self.values["-append"][0].split()
        self.channel = self._socket("channel")
        self.qmp = self._socket("qmp")
        self.lock = threading.Lock()
        self.status = "prelaunch"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.vcpus = self._vcpus()

    def _vcpus(self) -> list[int]:
        """Start a thread for each vCPU, which does nothing, and return their ids."""
        ids: queue.SimpleQueue[int] = queue.SimpleQueue()

        def vcpu() -> None:
            ids.put(threading.get_native_id())
            threading.Event().wait()

        count = int(self.values["-smp"][0].split(",")[0].removeprefix("cpus="))
        for _ in range(count):
            threading.Thread(target=vcpu, daemon=True).start()
        return [ids.get() for _ in range(count)]

    def _socket(self, name: str) -> socket.socket | None:
        for value in self.values.get("-chardev", []):
            options = value.split(",")
            if options[0] == "socket" and f"id={name}" in options:
                number = next(int(word[3:]) for word in options if word.startswith("fd="))
                return socket.socket(fileno=number)
        return None

    def run(self) -> None:
        if "stderr" in self.script:
            sys.stderr.write(self.script["stderr"])
            sys.stderr.flush()
            self.die(self.script.get("status", 1))
        if self.script.get("spin"):
            while True:
                time.sleep(3600)
        if self.bare:
            self.say_channel("rig: bare\n")
            self.die(0)
        assert self.qmp is not None
        self.send(
            {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
        )
        for request in self.requests():
            answer = self.answer(request["execute"], request.get("arguments", {}))
            self.send({"return": answer, "id": request.get("id")})
            if request["execute"] == "cont":
                self.status = "running"
                threading.Thread(target=self.act, daemon=True).start()
            elif request["execute"] == "quit":
                self.shut_down("host-qmp-quit")
        self.die(0)

    def requests(self) -> Iterator[dict[str, Any]]:
        """The requests as they come; nothing but the JSON itself says where one ends."""
        assert self.qmp is not None
        decoder, text = json.JSONDecoder(), ""
        while chunk := self.qmp.recv(4096):
            text += chunk.decode()
            while text:
                try:
                    request, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                yield request

    def answer(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "human-monitor-command":
            port = self.listener.getsockname()[1]
            return (
                "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
                f"  TCP[HOST_FORWARD]  12       127.0.0.1 {port}       10.0.2.15    22     0     0\r\n"
            )
        if command == "query-cpus-fast":
            return [{"cpu-index": index, "thread-id": thread} for index, thread in enumerate(self.vcpus)]
        if command == "query-status":
            return {"status": self.status, "running": self.status == "running"}
        return {}

    def act(self) -> None:
        for name, *arguments in self.script["acts"]:
            getattr(self, f"do_{name}")(*arguments)

    def do_console(self, text: str) -> None:
        os.write(1, text.encode(errors="surrogateescape"))

    def do_channel(self, text: str) -> None:
        self.say_channel(text)

    def do_garbage(self, size: int) -> None:
        self.pour(random.Random(1).randbytes(size))

    def do_flood(self, size: int) -> None:
        line = b"[    2.000000][    T1] flood flood flood flood flood flood flood flood flood flood\n"
        block = line * (65536 // len(line))
        for _ in range(size // len(block)):
            self.pour(block)

    def do_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def do_hang(self) -> None:
        while True:
            time.sleep(3600)

    def do_ready(self) -> None:
        self.say_channel(READY)

    def do_ssh(self) -> None:
        from fakessh import FakeSsh, Reply

        files = initrd_files(Path(self.values["-initrd"][0]))
        FakeSsh(
            files["etc/dropbear/dropbear_ed25519_host_key"],
            files["root/.ssh/authorized_keys"].decode(),
            Path(tempfile.mkdtemp(prefix="fakeqemu.", dir=os.environ.get("TMPDIR"))),
            replies=[Reply(**reply) for reply in self.script.get("replies", [])],
            on_event=lambda name: getattr(self, f"do_{name}")(),
            listener=self.listener,
        )

    def do_deaf(self) -> None:
        threading.Thread(target=lambda: [self.listener.accept() for _ in range(1000)], daemon=True).start()

    def do_panic(self) -> None:
        self.do_console(PANIC)
        self.shut_down("guest-reset")

    def do_poweroff(self) -> None:
        self.shut_down("guest-shutdown")

    def do_freeze(self) -> None:
        """What QEMU does when the host is out of disk space (werror=stop)."""
        self.status = "io-error"
        self.event("BLOCK_IO_ERROR", {"device": "test", "reason": "No space left on device"})
        self.event("STOP", {})

    def do_schedule(self) -> None:
        for thread in self.vcpus:
            policy, nice = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
            self.do_console(f"schedule {policy} {nice} {sorted(os.sched_getaffinity(thread))}\n")

    def do_exit(self, status: int) -> None:
        self.die(status)

    def do_signal(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def pour(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(1, rest) :]

    def say_channel(self, text: str) -> None:
        if self.channel is None:
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            self.channel.sendall(text.encode())

    def event(self, name: str, data: dict[str, Any]) -> None:
        self.send({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})

    def shut_down(self, reason: str) -> None:
        self.event("SHUTDOWN", {"guest": reason.startswith("guest"), "reason": reason})
        self.die(0)

    def send(self, message: dict[str, Any]) -> None:
        assert self.qmp is not None
        with self.lock:
            self.qmp.sendall(json.dumps(message).encode() + b"\r\n")

    def die(self, status: int) -> None:
        if status < 0:
            signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        os._exit(status)


if __name__ == "__main__":
    if "--version" in sys.argv:
        print("QEMU emulator version 7.2.0 (fake)")
    elif "-plugin" in sys.argv and "--plugins" not in sys.argv:
        sys.exit("qemu-system-x86_64: -plugin: invalid option")
    elif "-kernel" not in sys.argv:
        sys.exit(0)  # a machine of nothing, that is told to quit
    else:
        Machine(sys.argv[1:]).run()
