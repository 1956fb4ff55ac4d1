"""Training samples: what a process keeps of a small split changes nothing but how often it is fetched, and neither
the number of workers nor where a run begins changes what an iteration is given."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray.data
import tiny
from ray import cloudpickle

from deeplab_ray.augment import augment, epoch_order, sample_rng
from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import IGNORE
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.on_ray import ingest
from deeplab_ray.on_ray.ingest import FetchCrops, training_samples
from deeplab_ray.shards import Manifest, Split, open_split, write_shard
from deeplab_ray.storage.location import locate

IMAGES = 4
RECIPE = Recipe(DeepLabV2Config(), AugmentConfig(crop=33), SolverConfig(batch=2, iterations=8))


def write_split(folder: Path, run: str, seed: int, unlabelled: tuple[int, ...] = ()) -> Split:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "id": f"{number:04d}",
            "image": tiny.png(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)),
            "label": None if number in unlabelled else tiny.png(rng.integers(0, 11, (40, 56), dtype=np.uint8)),
            "height": 40,
            "width": 56,
        }
        for number in range(IMAGES)
    ]
    place = locate(folder / "train")
    shard = write_shard(place / f"shards-{run}", "00000.parquet", rows)
    assert shard
    manifest = Manifest("camvid", "train", tiny.classes(11), [1] * 11, [shard], [])
    (place / "manifest.json").write_bytes(manifest.to_json().encode())
    return open_split(str(folder), "train")


def crops(split: Split) -> list[np.ndarray]:
    """Those of the first three epochs."""
    iterations = 3 * IMAGES // RECIPE.solver.batch
    plan = {"first": np.array([0]), "iterations": np.array([iterations]), "worker": np.array([0])}
    rows = FetchCrops(split, RECIPE)(plan)
    assert rows["iteration"].tolist() == [0]
    assert rows["image"].shape == (1, iterations, 2, 33, 33, 3)
    assert rows["label"].shape == (1, iterations, 2, 33, 33)
    return [rows["image"], rows["label"]]


def test_kept_samples_give_the_same_crops_as_fetched_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = write_split(tmp_path, "1", seed=1)
    kept = crops(split)
    monkeypatch.setattr(ingest, "_KEPT_BYTES", 0)
    assert all(np.array_equal(a, b) for a, b in zip(kept, crops(split), strict=True))


def test_a_split_that_is_prepared_again_is_read_again(tmp_path: Path) -> None:
    before = crops(write_split(tmp_path, "1", seed=1))
    after = crops(write_split(tmp_path, "2", seed=2))
    assert not np.array_equal(before[0], after[0])
    assert all(np.array_equal(a, b) for a, b in zip(after, crops(write_split(tmp_path / "x", "1", 2)), strict=True))


def test_a_small_split_is_fetched_once(tmp_path: Path) -> None:
    split = write_split(tmp_path, "1", seed=1)
    first = crops(split)
    file = Path(split.paths()[0])
    # What a handle that is still open would read now.
    file.write_bytes(b"\0" * file.stat().st_size)
    assert all(np.array_equal(a, b) for a, b in zip(first, crops(split), strict=True))


@pytest.mark.parametrize("kept", [2**20, 0], ids=["read whole", "read by range"])
def test_a_flipped_byte_ends_training_with_the_shards_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    split = write_split(tmp_path, "1", seed=1)
    file = Path(split.paths()[0])
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    monkeypatch.setattr(ingest, "_KEPT_BYTES", kept)
    with pytest.raises(UserError, match=f"^shard {file} is damaged"):
        crops(split)


def test_an_image_without_a_label_teaches_nothing(tmp_path: Path) -> None:
    split = write_split(tmp_path, "1", seed=1, unlabelled=(2,))
    fetch = FetchCrops(split, RECIPE)
    ignored = [(fetch.crop(index, 0, RECIPE.augment)[1] == IGNORE).all() for index in range(IMAGES)]
    assert ignored == [False, False, True, False]


@pytest.mark.usefixtures("ray_cluster")
def test_workers_see_small_crops_of_smaller_images_first_and_every_sample_in_its_turn(tmp_path: Path) -> None:
    split = write_split(tmp_path, "1", seed=1)
    config = replace(
        RECIPE,
        augment=AugmentConfig(crop=33, scale_min=1.1, scale_max=1.3, small_share=0.3, small_scale=0.6),
        solver=SolverConfig(batch=4, iterations=10),
    )
    small = AugmentConfig(crop=17, scale_min=1.1 * 17 / 33, scale_max=1.3 * 17 / 33)
    seen = by_worker(split, config, 2, start=1)
    for worker, got in enumerate(seen):
        assert [iteration for iteration, _ in got] == list(range(1, 10))
        for iteration, images in got:
            for number, image in enumerate(images):
                epoch, index = divmod(iteration * 4 + worker * 2 + number, IMAGES)
                sample = split.read(int(epoch_order(0, epoch, IMAGES)[index]))
                assert sample.label
                label = decode_label(sample.label)
                how = small if iteration < 3 else replace(config.augment, small_share=0)
                expected, _ = augment(decode_image(sample.image), label, how, sample_rng(0, epoch, sample.id))
                assert np.array_equal(image, expected), (iteration, worker, number)


def by_worker(split: Split, recipe: Recipe, workers: int, start: int) -> list[list[tuple[int, np.ndarray]]]:
    """Iterations and their images, as Ray Train gives them to each worker."""
    samples = training_samples(split, recipe, workers, start)
    samples.context.execution_options = ray.data.ExecutionOptions(preserve_order=True)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_iterations, samples.streaming_split(workers, equal=True)))


def _iterations(shard: ray.data.DataIterator) -> list[tuple[int, np.ndarray]]:
    return [
        (int(row["iteration"][0]) + number, np.array(images))
        for row in shard.iter_batches(batch_size=None, batch_format="numpy")
        for number, images in enumerate(row["image"][0])
    ]


@pytest.mark.usefixtures("ray_cluster")
def test_any_number_of_workers_and_any_start_see_the_same_global_batches(tmp_path: Path) -> None:
    split = write_split(tmp_path, "1", seed=1)
    config = replace(RECIPE, solver=SolverConfig(batch=6, iterations=40))

    def batches(workers: int, start: int) -> list[tuple[int, bytes]]:
        seen = by_worker(split, config, workers, start)
        return [
            (iterations[0], np.concatenate(images).tobytes())
            for iterations, images in (zip(*shares, strict=True) for shares in zip(*seen, strict=True))
            if len(set(iterations)) == 1
        ]

    alone = batches(workers=1, start=0)
    assert [iteration for iteration, _ in alone] == list(range(40))
    assert len({images for _, images in alone}) == 40
    assert batches(workers=2, start=0) == alone
    assert batches(workers=3, start=17) == alone[17:]


@pytest.mark.usefixtures("ray_cluster")
def test_what_the_driver_holds_does_not_grow_with_the_training(tmp_path: Path) -> None:
    split = write_split(tmp_path, "1", seed=1)
    lengths = [replace(RECIPE, solver=SolverConfig(batch=2, iterations=n)) for n in (100, 100_000)]
    sizes = [len(cloudpickle.dumps(training_samples(split, config, 1, start=0))) for config in lengths]
    # The number itself takes two bytes more.
    assert abs(sizes[1] - sizes[0]) < 64


def test_each_process_unpickles_a_split_once(tmp_path: Path) -> None:
    pickled = cloudpickle.dumps(FetchCrops(write_split(tmp_path, "1", seed=1), RECIPE))
    first = cloudpickle.loads(pickled)
    crops = [fetch.crop(0, 0, RECIPE.augment)[0] for fetch in (first, FetchCrops(first.split, RECIPE))]
    assert np.array_equal(*crops)
    assert cloudpickle.loads(pickled) is first
