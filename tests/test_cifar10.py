"""CIFAR-10: three kinds of file with the same images, augmentation, the networks' sizes."""

import pickle
import tarfile

import numpy as np
import pytest
import torch

from bandwise import tasks
from bandwise.tasks import cifar10, generator
from bandwise.tasks.resnet import resnet, wide_resnet
from jpegs import write_jpegs


@pytest.fixture
def batches(tmp_path):
    """The archive's folder, with 20 images per file."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels = random.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = {b"data": pixels, b"labels": random.integers(0, 10, 20).tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    return folder


def load(path, **options):
    return tasks.load("cifar10", {"path": str(path), "images": 100, "batch_size": 8, **options})


def test_the_folder_and_its_archive_hold_the_same_images(batches, tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(batches, batches.name)
    task = load(batches)
    assert load(archive).fingerprint() == task.fingerprint()
    assert {split: len(labels) for split, (_, labels) in task._data.items()} == {
        "train": 90, "val": 10, "test": 20}  # fmt: skip


def test_a_pixel_of_the_folder_is_where_it_belongs(batches):
    content = pickle.loads((batches / "test_batch").read_bytes())
    inputs, labels = load(batches)._data["test"]
    order = torch.randperm(20, generator=generator(seed=0, step=0)).tolist()
    assert labels.tolist() == [content[b"labels"][i] for i in order]
    # Rows of red, then of green, then of blue.
    byte = content[b"data"][order[3]][1024 + 5 * 32 + 7]
    assert inputs[3, 1, 5, 7].item() == pytest.approx((byte / 255 - 0.4822) / 0.2435, abs=1e-5)


def test_images_are_chosen_from_every_class_of_a_sorted_file(tmp_path):
    write_jpegs(tmp_path / "images.npz", train=1000, test=50)
    task = load(tmp_path / "images.npz", images=200)
    inputs, labels = task._data["train"]
    assert len(labels) == 180
    assert torch.bincount(labels, minlength=10).min() > 5
    # Each class has one colour.
    colour = inputs.mean((2, 3))
    spread = torch.stack([colour[labels == label].std(0).max() for label in range(10)])
    assert spread.max() < 0.1 < colour.std(0).min()


def test_augmentation_depends_on_seed_and_step_and_moves_whole_images(batches):
    images = torch.rand(200, 3, 32, 32)
    moved = cifar10.augmented(images, generator(0, 1))
    assert torch.equal(moved, cifar10.augmented(images, generator(0, 1)))
    assert not torch.equal(moved, cifar10.augmented(images, generator(0, 2)))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    seen = set()
    for image, result in zip(padded, moved, strict=True):
        crops = {
            (top, left): image[:, top : top + 32, left : left + 32]
            for top in range(9)
            for left in range(9)
        }
        found = [
            (*place, flip)
            for place, crop in crops.items()
            for flip in (False, True)
            if torch.equal(crop.flip(2) if flip else crop, result)
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len({flip for *_, flip in seen}) == 2
    assert {top for top, *_ in seen} == set(range(9)) == {left for _, left, _ in seen}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_the_networks_are_those_of_the_papers():
    # kuangliu/pytorch-cifar's ResNet-18; Wide Residual Networks, table 4: 36.5M and 8.9M.
    assert parameters(resnet((64, 128, 256, 512), 2)) == 11_173_962
    assert round(parameters(wide_resnet(28, 10)) / 1e6, 1) == 36.5
    assert round(parameters(wide_resnet(40, 4)) / 1e6, 1) == 8.9  # table 4
    for model in (wide_resnet(10, 1), resnet((16, 32, 64), 1)):
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": "vgg"}, "model: Input should be 'small', 'resnet18' or 'wideresnet'"),
        ({"size": "huge"}, "size: Input should be 'small' or 'paper', got 'huge'"),
        ({"images": 101}, "at most the 100"),
        ({"model": "wideresnet", "depth": 11}, "depth must be 10, 16"),
    ],
)
def test_bad_options(batches, options, match):
    with pytest.raises(ValueError, match=match):
        load(batches, **options).model()


def test_what_is_no_cifar(tmp_path):
    with pytest.raises(FileNotFoundError, match="path must be"):
        load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="does not hold CIFAR-10"):
        load(tmp_path / "other.npz")
    (tmp_path / "text.tar.gz").write_text("no archive")
    with pytest.raises(ValueError, match="does not hold CIFAR-10"):
        load(tmp_path / "text.tar.gz")
