"""Folders by class: numbering, order, splits, and one line for each thing that can be wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.data import DataError, Dataset, load


def put(path: Path, value: int, shape: tuple[int, ...] = (4, 5, 3), form: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path, form)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Values 10, 11 ... in the order of torchvision: classes by sorted name, files by sorted name."""
    names = ["Zebra/a.png", "cat/b.bmp", "cat/c.WEBP", "cat/sub/a.jpeg", "dog/10.png", "dog/9.jpg"]
    for value, name in enumerate(names, start=10):
        put(tmp_path / "photos" / name, 10 * value)
    (tmp_path / "photos/cat/notes.txt").write_text("no image")
    (tmp_path / "photos/.hidden").mkdir()
    return tmp_path / "photos"


def values(data: Dataset) -> list[int]:
    return [round(value) for value in data.images.float().mean((1, 2, 3)).tolist()]


def refused(path: Path, split: str = "test") -> str:
    with pytest.raises(DataError) as caught:
        load(str(path), split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_files_and_order_are_torchvisions_shuffled_by_numpys_frozen_permutation(photos: Path) -> None:
    data = load(str(photos))
    order = np.random.RandomState(0).permutation(6)
    assert data.classes == ("Zebra", "cat", "dog")  # capitals sort first
    assert data.classes_known
    assert data.labels.tolist() == [[0, 1, 1, 1, 2, 2][i] for i in order]
    assert (torch.tensor(values(data)) - torch.tensor([100 + 10 * int(i) for i in order])).abs().max() <= 1  # JPEG
    assert data.images.shape == (6, 3, 4, 5)
    assert data.note == "photos (JPEG, shuffled)"
    assert str(data) == "photos (JPEG, shuffled): 6 images of 5 x 4 pixels, RGB; 3 classes: Zebra, cat, dog"


def test_the_first_n_are_a_prefix_of_all(photos: Path) -> None:
    few, every = load(str(photos), n=2), load(str(photos))
    assert torch.equal(few.images, every.images[:2])
    assert torch.equal(few.labels, every.labels[:2])
    with pytest.raises(DataError, match="n must be from 1 to 6, the examples there are, not 7"):
        load(str(photos), n=7)


def test_pixels_are_those_of_the_files_over_255(photos: Path) -> None:
    x, _ = load(str(photos)).batch()
    first = int(np.random.RandomState(0).permutation(6)[0])
    name = ["Zebra/a.png", "cat/b.bmp", "cat/c.WEBP", "cat/sub/a.jpeg", "dog/10.png", "dog/9.jpg"][first]
    with Image.open(photos / name) as image:
        by_hand = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)
    assert torch.equal(x[0], torch.from_numpy(by_hand))


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_splits_share_the_classes_of_train(tmp_path: Path, name: str) -> None:
    for value, file in enumerate(
        ["train/a/1.png", "train/b/1.png", "train/c/1.png", f"{name}/a/1.png", f"{name}/c/1.png"]
    ):
        put(tmp_path / file, value)
    test, train = load(str(tmp_path)), load(str(tmp_path), "train")
    assert test.classes == train.classes == ("a", "b", "c")
    assert test.labels.tolist() == [0, 2]  # as the model was trained, though there is no test image of b
    assert values(test) == [3, 4]
    assert values(train) == [0, 1, 2]


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    for file in ("car/1.png", "test/1.png", "train/1.png"):
        put(tmp_path / file, 1)
    assert load(str(tmp_path)).classes == ("car", "test", "train")


def test_grey_images_alone_have_one_channel_and_among_colour_they_become_rgb(tmp_path: Path) -> None:
    put(tmp_path / "grey/a/1.png", 7, (4, 5))
    put(tmp_path / "grey/b/1.png", 9, (4, 5))
    assert load(str(tmp_path / "grey")).images.shape == (2, 1, 4, 5)
    put(tmp_path / "grey/b/2.png", 9)
    mixed = load(str(tmp_path / "grey"))
    assert mixed.images.shape == (3, 3, 4, 5)
    assert mixed.note == "grey (2 grey images as RGB, shuffled)"


def test_mixed_sizes_name_two_files_and_the_remedy(tmp_path: Path) -> None:
    put(tmp_path / "a/1.png", 7)
    put(tmp_path / "b/2.png", 8, (6, 7, 3))
    told = f"{tmp_path}/b/2.png is 7x6 but {tmp_path}/a/1.png is 5x4: give --size 224, for example, which resizes and "
    assert refused(tmp_path) == told + "crops all images to one shape"
    assert load(str(tmp_path), size=3).images.shape == (2, 3, 3, 3)


def test_a_broken_file_is_named(photos: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3)).astype(np.uint8)).save(whole, "PNG")
    (photos / "dog/10.png").write_bytes(whole.getvalue()[:900])
    assert refused(photos).startswith(f"{photos}/dog/10.png cannot be decoded (")
    (photos / "dog/10.png").write_bytes(b"")
    told = "(not a PNG, JPEG, WebP or BMP): fetch or write the file again"
    assert refused(photos) == f"{photos}/dog/10.png cannot be decoded {told}"
    (photos / "dog/10.png").unlink()
    Image.new("RGB", (5, 4)).save(photos / "dog/x.tif")
    assert refused(photos) == f"{photos}/dog/x.tif cannot be decoded {told}"


def test_a_file_that_vanished_or_is_closed_is_named(photos: Path) -> None:
    (photos / "dog/10.png").unlink()
    (photos / "dog/10.png").symlink_to("nowhere.png")
    assert refused(photos) == f"{photos}/dog/10.png is missing: put it there, or remove its entry"


def test_what_has_no_class_or_no_image_is_named(photos: Path, tmp_path: Path) -> None:
    (photos / "bird").mkdir()
    assert refused(photos) == f"{photos}/bird holds no images: put the images of this class there, or remove it"
    (photos / "bird").rmdir()
    put(photos / "stray.png", 1)
    told = "lies in no class folder: move it into the folder of its class, or remove it"
    assert refused(photos) == f"{photos}/stray.png {told}"
    (tmp_path / "empty").mkdir()
    told = "holds no class folders: give a folder with one folder of images for each class"
    assert refused(tmp_path / "empty") == f"{tmp_path}/empty {told}"


def test_splits_that_do_not_fit_are_named(tmp_path: Path) -> None:
    put(tmp_path / "train/a/1.png", 1)
    told = "has no test/ or val/: add one, or give the path of a folder of class folders"
    assert refused(tmp_path) == f"{tmp_path} {told}"
    assert load(str(tmp_path / "train")).classes == ("a",)
    put(tmp_path / "test/b/1.png", 1)
    told = f"{tmp_path}/test/b is no class of {tmp_path}/train: rename it to one of a, or remove it"
    assert refused(tmp_path) == told
    put(tmp_path / "only/test/b/1.png", 1)
    assert load(str(tmp_path / "only")).classes == ("b",)
    assert refused(tmp_path / "only", "train").startswith(f"{tmp_path}/only has no train/: ")
