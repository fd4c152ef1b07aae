"""Images in folders named for their classes, as torchvision's ``ImageFolder`` takes them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from unmask.data.dataset import DataError, Dataset
from unmask.data.forms.encoded import Encoded, decoded, read_image
from unmask.data.forms.form import Form, Wanted

__all__ = ["image_folder"]

_NAMES = {"train": ("train",), "test": ("test", "val", "valid", "validation")}
"""Folders of a split, the first one that is there."""

_IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""Files that are meant to be images; those that cannot be read are refused, since they would be missing."""


def _load(wanted: Wanted) -> Dataset:
    """Classes are numbered in the order of their sorted names, as by torchvision, and images sorted within each.

    Where there is ``train/`` beside ``test/`` or ``val/``, the classes are those of ``train/``, on which the model was
    trained, and a folder of another class is refused.
    """
    root = wanted.path
    trained, there = _split(root, "train"), _split(root, wanted.split)
    if there is None and (trained or _split(root, "test")):
        names = " or ".join(f"{name}/" for name in _NAMES[wanted.split][:2])
        raise DataError(f"{root} has no {names}", "add one, or give the path of a folder of class folders")
    folder = there or root
    folders = {path.name: path for path in _folders(folder)}
    loose = next((path for path in sorted(folder.iterdir()) if _is_image(path)), None)
    if loose is not None:
        raise DataError(f"{loose} lies in no class folder", "move it into the folder of its class, or remove it")
    if not folders:
        raise DataError(f"{folder} holds no class folders", "give a folder with one folder of images for each class")
    classes = [path.name for path in _folders(trained or folder)]
    for name, path in folders.items():
        if name not in classes:
            raise DataError(f"{path} is no class of {trained}", f"rename it to one of {_listed(classes)}, or remove it")
    files = [(image, classes.index(name)) for name, path in folders.items() for image in _images(path)]
    paths = [image for image, _ in files]

    def called(row: int) -> str:
        return str(paths[row])

    labels = torch.tensor([label for _, label in files])
    return decoded(
        Encoded(
            lambda row: read_image(paths[row], called(row)),
            called,
            labels,
            tuple(classes),
            root.name or str(root),
            found=trained is None,
        ),
        wanted,
    )


def _split(root: Path, split: str) -> Path | None:
    """The folder of a split, which holds class folders; a class of that name holds images."""
    return next((root / name for name in _NAMES[split] if (root / name).is_dir() and _folders(root / name)), None)


def _folders(folder: Path) -> list[Path]:
    """Those in it, sorted by name, without hidden ones."""
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: path.name)


def _images(folder: Path) -> list[Path]:
    """The images of a class, also those in subfolders, in torchvision's order."""
    found = [
        Path(place) / name
        for place, _, names in sorted(os.walk(folder))
        for name in sorted(names)
        if _is_image(Path(place) / name)
    ]
    if not found:
        raise DataError(f"{folder} holds no images", "put the images of this class there, or remove it")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGES and not path.name.startswith(".") and not path.is_dir()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")


image_folder = Form(
    "FOLDER",
    "images in folders named for their classes, flat or in test/ or val/ beside train/",
    "photos/",
    lambda wanted: wanted.path.is_dir(),
    _load,
)
