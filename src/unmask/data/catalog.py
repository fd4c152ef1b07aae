"""The data sets that unmask knows by name, where they are kept, and how one is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from unmask.data import hub, parquet, torchvision_files
from unmask.data.dataset import DataError, Dataset
from unmask.data.decode import decode, rows_of
from unmask.data.digits import digits
from unmask.data.forms.form import Wanted
from unmask.data.forms.parquet_files import where
from unmask.data.forms.resolve import resolve
from unmask.data.torchvision_files import Originals

__all__ = ["default_home", "describe", "load", "names"]

_SPLITS = ("train", "test")


@dataclass(frozen=True)
class _Published:
    """A data set that is kept in files under ``HOME/data/NAME``."""

    name: str
    title: str
    about: str
    channels: int
    splits: tuple[str, ...] = _SPLITS
    classes: tuple[str, ...] | None = None  # None: as the files say
    size: int | None = None  # images of many sizes are resized and cropped to this
    repository: str | None = None  # on the hub, with the folder of its parquet files
    folder: str = ""
    originals: tuple[Originals, ...] = ()
    caution: str = ""  # what a reader of figures on it has to know
    home: str = ""  # where its images are to be had, if not on the hub


_PUBLISHED = {
    source.name: source
    for source in (
        _Published(
            "mnist",
            "MNIST",
            "handwritten digits, 28x28 grey, 10 classes",
            channels=1,
            classes=tuple(str(digit) for digit in range(10)),
            repository="ylecun/mnist",
            folder="mnist",
            originals=(torchvision_files.mnist,),
        ),
        _Published(
            "cifar10",
            "CIFAR-10",
            "photographs, 32x32 RGB, 10 classes",
            channels=3,
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            repository="uoft-cs/cifar10",
            folder="plain_text",
            originals=(torchvision_files.cifar10,),
        ),
        _Published(
            "imagenet-sample",
            "ImageNet sample",
            "photographs, one a class, 224x224 RGB, 1000 classes",
            channels=3,
            splits=("test",),
            size=224,
            home="github.com/EliSchwartz/imagenet-sample-images",
            caution="probably training images",  # so clean accuracy is above that on the validation set
        ),
    )
}


def names() -> tuple[str, ...]:
    """The names that :func:`load` knows.

    >>> names()
    ('digits', 'mnist', 'cifar10', 'imagenet-sample')
    """
    return ("digits", *_PUBLISHED)


def default_home() -> Path:
    """The folder of data and weights: ``$UNMASK_HOME``, or ``~/.cache/unmask``.

    Raises :class:`DataError` where there is neither: some containers run as a user without a home.
    """
    try:
        return Path(os.environ.get("UNMASK_HOME") or "~/.cache/unmask").expanduser()
    except RuntimeError as error:
        raise DataError("this user has no home folder", "set UNMASK_HOME to a folder for data and weights") from error


def describe(name: str, *, home: Path | None = None) -> str:
    """One line on a named data set: what it is, and which splits are on this machine.

    >>> describe("digits")
    'digits: handwritten digits, 8x8 grey, 10 classes; comes with scikit-learn'
    """
    if name == "digits":
        return "digits: handwritten digits, 8x8 grey, 10 classes; comes with scikit-learn"
    if name not in _PUBLISHED:
        raise _unknown(name)
    source = _PUBLISHED[name]
    try:
        folder = _folder(source, home)
        present = [split for split in source.splits if _present(source, folder, split)]
        state = f"{' and '.join(present)} in {folder}" if present else f"missing from {folder}"
    except DataError as error:
        state = str(error)
    return f"{source.title}: {source.about}; {state}"


def load(
    name: str, split: str = "test", *, n: int | None = None, home: Path | None = None, size: int | None = None
) -> Dataset:
    """The first ``n`` examples (all if None) of a data set, in the order of its files.

    ``name`` is one of :func:`names`, or names own data in one of the forms of :mod:`unmask.data.forms`: a folder of
    class folders, a CSV, npz, torch, safetensors or parquet file by its path, ``hf:NAME``. Named sets are kept in
    ``home / "data" / name`` as the hub's parquet files or as torchvision's original files; ``home`` is by default
    :func:`default_home`. What is not there is downloaded if ``huggingface_hub`` is installed. For ``test``, a set that
    only has a ``validation`` split gives that one; a path of one file gives that file whatever ``split`` says. Own data
    that are sorted by class, except in parquet files, are shuffled, always in the same way.

    ``size`` is for images of many sizes: their short side is resized to ``size * 256 / 224`` (bilinear)
    and the central square of ``size`` is cut out; ``imagenet-sample`` has 224 by default. Own images
    have one channel if all are grey, and three (RGB) otherwise.

    Raises :class:`DataError`, always of one line, if the data is unknown, missing, broken or too small for ``n``.

    >>> x, y = load("digits", n=3).batch()
    >>> tuple(x.shape), float(x.min()), float(x.max())
    ((3, 1, 8, 8), 0.0, 1.0)
    """
    if split not in _SPLITS:
        raise DataError(f"unknown split '{split}'", "ask for 'train' or 'test'")
    if n is not None and n < 1:
        raise DataError(f"{name}: n must be at least 1, not {n}")
    if size is not None and size < 1:
        raise DataError(f"{name}: size must be at least 1, not {size}")
    source = _PUBLISHED.get(name)
    if size is not None and (name == "digits" or (source and source.size is None)):
        raise DataError(f"{name} has images of one size", "leave size out")
    if name == "digits":
        dataset = digits(split)
    elif source:
        dataset = _load_published(source, split, n, _folder(source, home), size or source.size)
    else:
        wanted = Wanted(name, split, n, size)
        form = resolve(wanted)
        if form is None:
            raise _unknown(name)
        dataset = form.load(wanted)
    return dataset if n is None else dataset.first(n)


def _load_published(source: _Published, split: str, n: int | None, folder: Path, size: int | None) -> Dataset:
    if split not in source.splits:
        raise DataError(f"{source.name} has no {split} split", f"ask for {' or '.join(source.splits)}")
    files = parquet.find(folder, split)
    if not files:
        for form in source.originals:
            if found := form.find(folder, split):
                images, labels = form.read(found, n)
                return Dataset(source.name, images, labels, source.classes or (), source.title)
        files = [_download(source, split, folder)]
    rows = parquet.read(files, n)
    images, jpeg, _ = decode(rows.encoded, channels=source.channels, size=size, called=rows_of(where(files)))
    remarks = ", ".join(filter(None, ("JPEG copies" if jpeg else "", source.caution)))
    note = f"{source.title} ({remarks})" if remarks else source.title
    return Dataset(source.name, images, rows.labels, source.classes or rows.classes, note)


def _download(source: _Published, split: str, folder: Path) -> Path:
    """The parquet file of a split, fetched from the hub; where that cannot be, says what to put where."""
    file = f"{split}-00000-of-00001.parquet"
    if source.repository and (fetched := hub.fetch(source.repository, f"{source.folder}/{file}", folder)):
        return fetched
    forms = " or ".join([file, *(form.example for form in source.originals)])
    install = 'pip install "unmask[hub]" to download it, ' if source.repository else ""
    made = f" (of the images of {source.home})" if source.home else ""
    raise DataError(
        f"{source.name} ({split}) is missing", f"{install}put {forms}{made} into {folder}, or set UNMASK_HOME"
    )


def _present(source: _Published, folder: Path, split: str) -> bool:
    return bool(parquet.find(folder, split)) or any(form.find(folder, split) for form in source.originals)


def _folder(source: _Published, home: Path | None) -> Path:
    return (home or default_home()) / "data" / source.name


def _unknown(name: str) -> DataError:
    known = ", ".join(names())
    return DataError(
        f"there is no data set, folder or file '{name}'", f"give the path of your own data, or one of {known}"
    )
