"""A new project of a decoder: a package with one function, a test and a fixture."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from headcount.decoders.formats import SHIPPED
from headcount.decoders.plugins import NAME
from headcount.errors import DecoderError

#: Files of the project, and the templates that they are made of.
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "MODULE.py": "decoder.py.txt",
    "tests/test_decoder.py": "test_decoder.py.txt",
    "tests/fixtures/uplink.json": "uplink.json.txt",
}


def create_project(name: str, folder: Path | None) -> list[Path]:
    """Write the project of the format `name` into a folder, by default a new one of its name; return its files.

    Raises:
        DecoderError: the name is not valid, the folder is not empty, or it cannot be written.
    """
    if not NAME.fullmatch(name) or name in (format_.name for format_ in SHIPPED):
        raise DecoderError(
            name, "the name is not valid or taken", "Use up to 31 lower case letters, digits and hyphens"
        )
    package = f"headcount-decoder-{name}"
    words = {"PACKAGE": package, "MODULE": package.replace("-", "_"), "NAME": name}
    folder = folder or Path(package)
    templates = files("headcount.decoders") / "scaffold"
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DecoderError(name, f"the folder {folder} is not empty", "Choose another one with --folder")
        for path, template in _FILES.items():
            file = folder / _filled(path, words)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(templates.joinpath(template).read_text("utf-8"), words), "utf-8")
            written.append(file)
    except OSError as error:
        raise DecoderError(
            name, f"{folder} cannot be written: {error.strerror}", "Choose another --folder"
        ) from error
    return written


def _filled(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
