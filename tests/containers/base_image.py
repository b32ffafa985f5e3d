"""A base image out of this machine's own Python, where no registry can be reached.

It holds what the Dockerfile needs of an official slim Python image: Python with pip, a shell, some
programs, the libraries that wheels expect. It is for tests on the machine on which it was made.

    python tests/containers/base_image.py NAME
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PROGRAMS = ("sh", "cat", "chmod", "chown", "cp", "find", "id", "ls", "mkdir", "mv", "rm", "sleep")
#: The libraries that manylinux wheels expect of a system.
LIBRARIES = (
    *("libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6", "libutil.so.1"),
    *("libstdc++.so.6", "libgcc_s.so.1", "libz.so.1", "libexpat.so.1"),
)
LEFT_OUT = frozenset({"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3"})
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


def base_python() -> Path:
    """The Python on which the one that runs this is based."""
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def contents() -> Iterator[tuple[Path, Path]]:
    """Every file as (where it is here, where it is in the image)."""
    python = base_python()
    folders = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    binaries = [python, *(Path(found).resolve() for name in PROGRAMS if (found := shutil.which(name)))]
    yield python, python
    for name in PROGRAMS:
        if found := shutil.which(name):
            yield Path(found).resolve(), Path("/usr/bin") / name
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).parts
            needed = LEFT_OUT.isdisjoint(inside) and not inside[0].startswith(("config-", "site-", "dist-"))
            if needed:
                if path.is_file():
                    yield path, path
                if path.suffix == ".so":
                    binaries.append(path)
    site = Path(subprocess.check_output([python, "-c", _PURELIB], text=True).strip())
    pip = Path(sysconfig.get_path("purelib")) / "pip"
    for path in sorted(pip.rglob("*.py")) + sorted(pip.rglob("*.pem")):
        yield path, site / path.relative_to(pip.parent)
    for path in sorted(Path("/usr/share/zoneinfo").rglob("*")):
        if path.is_file() and "right" not in path.parts and "posix" not in path.parts:
            yield path.resolve(), path
    for library in sorted(libraries(binaries)):
        yield library.resolve(), library


_PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


def libraries(binaries: Iterable[Path]) -> set[Path]:
    """The shared libraries of some programs, and those that wheels expect."""
    told = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    known = subprocess.check_output(["/sbin/ldconfig", "-p"], text=True)
    expected = [line for line in known.splitlines() if line.split()[:1] and line.split()[0] in LIBRARIES]
    words = [word for line in [*told.splitlines(), *expected] for word in line.split()]
    return {Path(word) for word in words if word.startswith("/") and ".so" in word and not word.endswith(":")}


def write(stream: io.BufferedIOBase) -> None:
    """Write the image's files as a tar archive."""
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, text in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        for name, target in (
            ("bin", "usr/bin"),
            ("usr/local/bin/python", str(base_python())),
            ("usr/local/bin/python3", str(base_python())),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
            seen.add(name)
        for name, mode in (("tmp", 0o1777), ("root", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for here, there in contents():
            name = str(there).lstrip("/").removeprefix("bin/")
            if name in seen:
                continue
            seen.add(name)
            info = tar.gettarinfo(here, name)
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mode |= 0o444
            if info.isreg():
                with here.open("rb") as file:
                    tar.addfile(info, file)


def main(name: str) -> None:
    """Make the image `name`."""
    path = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
    command = ["docker", "import", "--change", path, "-", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing:
        assert importing.stdin is not None
        write(importing.stdin)  # type: ignore[arg-type]
        importing.stdin.close()
    if importing.returncode:
        raise SystemExit(f"docker import ended with {importing.returncode}")


if __name__ == "__main__":
    main(sys.argv[1])
