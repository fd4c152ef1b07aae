"""Arrays in npz, torch and safetensors files: axes, values, labels, names of classes; and files that are not sound."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unmask.data import DataError, Dataset, load
from unmask.data.forms import archives

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (4, 3, 6, 5)).astype(np.uint8)
LABELS = np.array([2, 0, 1, 0])
NAMES = ("ant", "bee", "cow")


def refused(path: Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(str(path), **more)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def as_npz(path: Path) -> Path:
    return npz(path / "x.npz", images=PIXELS, labels=LABELS, classes=np.array(NAMES))


def as_pt(path: Path) -> Path:
    content = {"images": torch.from_numpy(PIXELS), "labels": torch.from_numpy(LABELS), "classes": list(NAMES)}
    torch.save(content, path / "x.pt")
    return path / "x.pt"


def as_safetensors(path: Path) -> Path:
    content = {"images": torch.from_numpy(PIXELS), "labels": torch.from_numpy(LABELS)}
    save_file(content, path / "x.safetensors", {"classes": json.dumps(NAMES)})
    return path / "x.safetensors"


@pytest.mark.parametrize("write", [as_npz, as_pt, as_safetensors])
def test_pixels_labels_and_classes_come_back(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    data = load(str(write(tmp_path)), n=3)
    x, y = data.batch()
    assert np.array_equal(x.numpy(), PIXELS[:3].astype(np.float32) / np.float32(255))
    assert y.tolist() == [2, 0, 1]
    assert (data.classes, data.classes_known, data.scale) == (NAMES, True, 255)
    assert data.note == write(tmp_path).name


def test_a_pair_that_torch_saved_needs_no_names(tmp_path: Path) -> None:
    torch.save((torch.from_numpy(PIXELS), torch.from_numpy(LABELS)), tmp_path / "x.pt")
    data = load(str(tmp_path / "x.pt"))
    assert torch.equal(data.images, torch.from_numpy(PIXELS))
    assert data.classes == ("0", "1", "2")
    assert not data.classes_known


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PIXELS.transpose(0, 2, 3, 1), PIXELS),
        (PIXELS[:, :1].transpose(0, 2, 3, 1), PIXELS[:, :1]),
        (PIXELS[:, 0], PIXELS[:, :1]),
        (np.concatenate([PIXELS, PIXELS], 1), np.concatenate([PIXELS, PIXELS], 1)),  # six channels
    ],
    ids=["nhwc", "nhw1", "nhw", "six channels"],
)
def test_axes_are_recognised(tmp_path: Path, given: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(load(str(npz(tmp_path / "x.npz", images=given, labels=LABELS))).images.numpy(), expected)


def test_floats_in_the_unit_interval_are_kept(tmp_path: Path) -> None:
    given = RANDOM.rand(4, 1, 2, 5)  # float64
    x, _ = load(str(npz(tmp_path / "x.npz", x=given, y=LABELS[:, None].astype(np.uint8)))).batch()
    assert np.array_equal(x.numpy(), given.astype(np.float32))


def test_a_split_has_arrays_of_its_own(tmp_path: Path) -> None:
    keras = npz(tmp_path / "k.npz", x_train=PIXELS[:2], y_train=LABELS[:2], x_test=PIXELS[2:], y_test=LABELS[2:])
    medmnist = {"train_images": PIXELS[:3], "train_labels": LABELS[:3, None], "val_images": PIXELS[3:]}
    assert np.array_equal(load(str(keras)).images.numpy(), PIXELS[2:])
    assert np.array_equal(load(str(keras), "train").images.numpy(), PIXELS[:2])
    path = npz(tmp_path / "m.npz", **medmnist, val_labels=LABELS[3:, None])
    assert load(str(path)).labels.tolist() == [0]
    assert load(str(path), "train").labels.tolist() == [2, 0, 1]


def test_rows_sorted_by_class_are_shuffled_whatever_n_is(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", images=PIXELS, labels=np.sort(LABELS))
    order = np.random.RandomState(0).permutation(4)
    data: Dataset = load(str(path), n=2)
    assert np.array_equal(data.images.numpy(), PIXELS[order[:2]])
    assert data.labels.tolist() == np.sort(LABELS)[order[:2]].tolist()
    assert data.note == "x.npz (shuffled)"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, " holds images: name the arrays 'images' and 'labels', or 'test_images' ..."),
        (
            {"images": PIXELS / 2.0, "labels": LABELS},
            ": images lie in [0, 127.5]: divide them by 255, so that they lie in [0, 1]",
        ),
        (
            {"images": PIXELS / 255.0 * 4 - 2, "labels": LABELS},
            ": images lie in [-2, 2]: give images in [0, 1], and normalise inside the model",
        ),
        (
            {"images": np.full((4, 1, 2, 5), np.nan), "labels": LABELS},
            ": images hold NaN or infinite values: give finite values in [0, 1]",
        ),
        (
            {"images": PIXELS // 16, "labels": LABELS},
            ": images are uint8 and go up to 15, where 255 is white: give x.float() / 15, if 15 is white",
        ),
        (
            {"images": PIXELS.astype(np.int64), "labels": LABELS},
            ": images are int64: give float32 in [0, 1], or uint8 from 0 to 255",
        ),
        (
            {"images": PIXELS[:, :, :, :3], "labels": LABELS},
            ": images of shape (4, 3, 6, 3) may be (N, C, H, W) or (N, H, W, C): save them with another height or "
            "width",
        ),
        (
            {"images": PIXELS[:, 0, 0], "labels": LABELS},
            ": images have shape (4, 5): give (B, C, H, W) with B > 0",
        ),
        ({"images": PIXELS, "labels": LABELS[:3]}, ": there are 4 images and 3 labels: give one label an image"),
        (
            {"images": PIXELS, "labels": LABELS / 2},
            ": labels are float64: give class numbers as int64, as y.long() does",
        ),
        (
            {"images": PIXELS, "labels": np.eye(4)},
            ": labels have shape (4, 4), as one-hot rows have: give class numbers (B,), as y.argmax(1) does",
        ),
        (
            {"images": PIXELS, "labels": LABELS - 1},
            ": labels go from -1 to 1, but classes start at 0: leave out images without a class",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "classes": np.array(["a", "b"])},
            ": row 0 has label 2, but labels run from 0 to 1: correct it",
        ),
        (
            {"images": PIXELS, "labels": LABELS * 10**12},
            ": row 0 has label 2000000000000, but labels run from 0 to 999999: correct it",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "classes": np.arange(3)},
            ": 'classes' is no list of names: store one text for each class, or leave it out",
        ),
        (
            {"images": PIXELS, "labels": np.array([1, None, 2, 0])},
            " is no readable npz file (Object arrays cannot be loaded when allow_pickle=False): write plain arrays "
            "with numpy.savez",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_told(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    assert refused(npz(tmp_path / "x.npz", **arrays)) == message


def test_arrays_take_no_size(tmp_path: Path) -> None:
    assert refused(as_npz(tmp_path), size=5) == " holds arrays of one size: leave --size out"


@pytest.mark.parametrize("form", ["npz", "pt"])
def test_a_zip_bomb_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(archives, "_LARGE", 1 << 20)
    path = tmp_path / f"x.{form}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(3 << 20))
    assert refused(path) == ": images.npy unpacks to 3 MiB: store it with less compression"


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"images": Evil(), "labels": Evil()}, tmp_path / "x.pt")
    assert refused(tmp_path / "x.pt").startswith(" cannot be read as tensors alone (")
    assert not (tmp_path / "ran").exists()


def test_other_content_of_a_torch_file(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "x.pt")
    assert refused(tmp_path / "x.pt") == ' holds a Tensor: save {"images": x, "labels": y}'
    torch.save({"weight": torch.zeros(3), 1: torch.zeros(1)}, tmp_path / "x.pt")
    told = " holds weight: name the arrays 'images' and 'labels', or 'test_images' ..."
    assert refused(tmp_path / "x.pt") == told


@pytest.mark.parametrize("write", [as_npz, as_pt, as_safetensors])
@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"no such file" * 9])
def test_a_damaged_file_is_named(
    tmp_path: Path, write: Callable[[Path], Path], damage: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert refused(path).startswith((" is no readable ", " cannot be read as tensors alone ("))


def test_a_file_of_no_known_form(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"")
    known = "FILE.parquet, FOLDER, FILE.csv, FILE.npz, FILE.pt, FILE.safetensors, hf:NAME"
    assert refused(tmp_path / "x.tar") == f" is of no known form: give one of {known}; see `unmask list datasets`"
