import io
import json
import os
import subprocess
import sys
import threading
import time

import jax
import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxrobust.data import decode, pipeline, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from tests import catalog_data


def mesh(devices=1):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))


def write_imagenet(data_dir, examples, damaged=()):
    """ImageNet in its real TFDS layout, with JPEGs of different sizes made here."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "imagenet2012"
        code_path = None
        VERSION = tfds.core.Version("5.1.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1000),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in ("train", "validation")}

        def _generate_examples(self, split):
            rng = np.random.default_rng(len(split))
            for index in range(examples):
                size = rng.integers(40, 120, size=2)
                coarse = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
                buffer = io.BytesIO()
                coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
                content = buffer.getvalue()
                if (split, index) in damaged:
                    content = content[: len(content) // 2]
                yield (
                    f"{split}{index}",
                    {
                        "image": io.BytesIO(content),
                        "label": index % 1000,
                        "file_name": f"{split}_{index}.JPEG",
                    },
                )

    Builder(data_dir=data_dir).download_and_prepare(file_format="array_record")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_imagenet(folder, 26)
    catalog_data.write("fashion_mnist", folder)
    return str(folder)


@pytest.fixture(params=["in memory", "streamed", "grey in memory", "grey streamed", "imagenet2012"])
def config(request, data_dir):
    """One config for each path, of three channels and of one; the last with random crops."""
    if request.param == "imagenet2012":
        return DatasetConfig("imagenet2012", data_dir=data_dir, image_size=32)
    grey = request.param.startswith("grey")
    return DatasetConfig(
        "fashion_mnist" if grey else "digits",
        data_dir=data_dir,
        train_split="train[:26]",
        augmentation="crop_flip",
        in_memory=request.param.endswith("in memory"),
    )


def to_numpy(batch):
    return {name: np.asarray(array) for name, array in batch.items()}


def take(batches, count):
    return [to_numpy(next(batches)) for _ in range(count)]


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert np.array_equal(a[name], b[name]), name


def test_batches_have_the_promised_types_and_sharding(config):
    with pipeline.train_batches(config, batch_size=16, seed=0, mesh=mesh(8)) as batches:
        batch = next(batches)
    assert batch.keys() == {"image", "label", "index"}
    shape = (28, 28, 1) if config.name == "fashion_mnist" else (32, 32, 3)
    assert batch["image"].shape == (16, *shape)
    assert pipeline.describe(config).image_shape == shape
    assert batch["image"].dtype == np.uint8
    for name, array in batch.items():
        assert array.sharding.spec == jax.sharding.PartitionSpec("data"), name
        assert array.addressable_shards[3].data.shape[0] == 2
    assert batch["label"].dtype == batch["index"].dtype == np.int32


def test_every_epoch_covers_every_image_once_in_another_order(config):
    with pipeline.train_batches(config, batch_size=4, seed=1, mesh=mesh()) as batches:
        batches_of_two_epochs = take(batches, 13)
    index = np.concatenate([batch["index"] for batch in batches_of_two_epochs])
    assert sorted(index[:26]) == sorted(index[26:]) == list(range(26))
    assert not np.array_equal(index[:26], index[26:])
    assert index[:26].tolist() != list(range(26))


def test_labels_belong_to_their_images(config):
    resolved, dataset = resolve(config)
    split = sources.open_split(resolved, dataset, resolved.train_split)
    with pipeline.train_batches(config, batch_size=8, seed=0, mesh=mesh()) as batches:
        for batch in take(batches, 4):
            assert [split[i]["label"] for i in batch["index"]] == batch["label"].tolist()


def test_seed_decides_and_nothing_else(config):
    def run(seed, devices):
        with pipeline.train_batches(config, batch_size=8, seed=seed, mesh=mesh(devices)) as batches:
            return take(batches, 5)

    assert_equal(run(5, 1), run(5, 1))
    assert_equal(run(5, 1), run(5, 8))
    assert not np.array_equal(run(5, 1)[0]["index"], run(6, 1)[0]["index"])


@pytest.mark.parametrize("stop", [0, 2, 4])
def test_restored_iteration_is_bit_identical(config, stop):
    # 26 images in batches of 8: batch 3 reaches across the end of the epoch.
    with pipeline.train_batches(config, batch_size=8, seed=2, mesh=mesh()) as batches:
        take(batches, stop)
        time.sleep(0.05)  # So that something has been prefetched.
        state = json.loads(json.dumps(batches.get_state()))
        expected = take(batches, 4)
        batches.set_state(state)
        assert_equal(take(batches, 4), expected)
    with pipeline.train_batches(config, batch_size=8, seed=2, mesh=mesh(2)) as batches:
        batches.set_state(state)
        assert_equal(take(batches, 4), expected)
        assert batches.get_state()["batches"] == stop + 4


def test_state_of_other_data_is_refused(config):
    with pipeline.train_batches(config, batch_size=8, seed=2, mesh=mesh()) as batches:
        state = batches.get_state()
        with pytest.raises(ValueError, match="seed 3, expected 2"):
            batches.set_state({**state, "seed": 3})
        with pytest.raises(ValueError, match="batch_size 16, expected 8"):
            batches.set_state({**state, "batch_size": 16})
        with pytest.raises(TypeError, match="no end"):
            len(batches)


@pytest.mark.parametrize("batch_size", [8, 40])
def test_evaluation_counts_every_image_once(config, batch_size):
    split = config.train_split or "validation"
    with pipeline.evaluation_batches(config, split, batch_size=batch_size, mesh=mesh(8)) as batches:
        assert batches.num_examples == 26
        assert len(batches) == -(-26 // batch_size)
        start = batches.get_state()
        found = [to_numpy(batch) for batch in batches]
        assert len(found) == len(batches)
        with pytest.raises(StopIteration):
            next(batches)
        batches.set_state(start)
        assert_equal([to_numpy(batch) for batch in batches], found)
    mask = np.concatenate([batch["mask"] for batch in found])
    index = np.concatenate([batch["index"] for batch in found])
    assert mask.dtype == bool
    assert mask.sum() == 26
    assert index[mask].tolist() == list(range(26))


@pytest.mark.parametrize(("name", "size"), [("digits", 32), ("fashion_mnist", 40)])
def test_both_paths_hand_out_the_same_pictures(data_dir, name, size):
    runs = {}
    for in_memory in (True, False):
        config = DatasetConfig(name, data_dir=data_dir, image_size=size, in_memory=in_memory)
        with pipeline.train_batches(config, batch_size=64, seed=7, mesh=mesh()) as batches:
            runs[in_memory] = take(batches, 2)
    for held, streamed in zip(runs[True], runs[False], strict=True):
        assert np.array_equal(held["index"], streamed["index"])
        assert np.array_equal(held["label"], streamed["label"])
        # Enlarged by XLA on one side and by PIL on the other.
        assert np.abs(held["image"].astype(int) - streamed["image"]).max() <= 1


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("name", "size", "augmentation"),
    [
        ("digits", 8, "none"),
        ("digits", 8, "flip"),
        ("digits", 8, "crop_flip"),
        ("fashion_mnist", 28, "crop"),
    ],
)
def test_augmented_pictures_are_shifted_and_mirrored_originals(
    data_dir, in_memory, name, size, augmentation
):
    config = DatasetConfig(
        name, data_dir=data_dir, image_size=size, augmentation=augmentation, in_memory=in_memory
    )
    resolved, dataset = resolve(config)
    split = sources.open_split(resolved, dataset, "train")
    seen = set()
    with pipeline.train_batches(config, batch_size=128, seed=0, mesh=mesh(2)) as batches:
        for batch in take(batches, 2):
            for image, index in zip(batch["image"], batch["index"], strict=True):
                original = decode.decode(split[index]["image"], channels=image.shape[-1])
                padded = np.pad(original, ((4, 4), (4, 4), (0, 0)))
                matches = {
                    (y - 4, x - 4, flip)
                    for y in range(9)
                    for x in range(9)
                    for flip in (False, True)
                    if np.array_equal(
                        padded[y : y + size, x : x + size][:, :: -1 if flip else 1], image
                    )
                }
                assert matches
                if len(matches) == 1:
                    seen |= matches
    flips, shifts = {flip for *_, flip in seen}, {(y, x) for y, x, _ in seen}
    assert flips == ({False, True} if "flip" in augmentation else {False})
    reach = range(-4, 5) if "crop" in augmentation else [0]
    assert {y for y, _ in shifts} == {x for _, x in shifts} == set(reach)


def test_evaluation_is_resize_and_central_crop(data_dir):
    config = DatasetConfig("imagenet2012", data_dir=data_dir, image_size=28)
    resolved, dataset = resolve(config)
    split = sources.open_split(resolved, dataset, "validation")
    with pipeline.evaluation_batches(config, None, batch_size=26, mesh=mesh()) as batches:
        images = np.asarray(next(batches)["image"])
    for index, image in enumerate(images):
        full = Image.open(io.BytesIO(split[index]["image"]))
        size = [int(32 * side / min(full.size)) for side in full.size]
        resized = full.resize(size, Image.Resampling.BILINEAR)
        left, top = round((resized.width - 28) / 2), round((resized.height - 28) / 2)
        expected = np.asarray(resized.crop((left, top, left + 28, top + 28)))
        assert np.abs(image.astype(int) - expected).max() <= 2


def test_config_dict_and_describe(data_dir):
    config = ml_collections.ConfigDict(
        {"name": "digits", "data_dir": data_dir, "image_size": None, "augmentation": "auto"}
    )
    info = pipeline.describe(config)
    assert (info.num_classes, info.image_shape) == (10, (32, 32, 3))
    assert info.splits == {"train": 1437, "test": 360}
    assert (info.train_examples, info.evaluation_examples) == (1437, 360)
    assert (info.augmentation, info.labels) == ("none", ("label",))


WORKERS = """
import sys
import jax, numpy as np
from absl import app
from jaxrobust.data import pipeline
from jaxrobust.data.dataset_config import DatasetConfig

def main(argv):
    mesh = jax.make_mesh((1,), ("data",))
    runs = []
    for workers in (0, 1, 2):
        config = DatasetConfig("imagenet2012", data_dir=argv[1], image_size=32, workers=workers)
        with pipeline.train_batches(config, batch_size=8, seed=0, mesh=mesh) as batches:
            run = [np.asarray(next(batches)["image"]) for _ in range(4)]
            batches.set_state({**batches.get_state(), "batches": 3})
            run.append(np.asarray(next(batches)["image"]))
        runs.append(run)
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])
    assert np.array_equal(runs[0][3], runs[0][4])
    print("same")

if __name__ == "__main__":
    app.run(main)
"""


@pytest.mark.slow
def test_workers_change_nothing(data_dir, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "XLA_FLAGS": ""}
    result = subprocess.run(
        [sys.executable, str(script), data_dir],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert "same" in result.stdout, result.stderr


PROCESSES = """
import json, sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[2], num_processes=int(sys.argv[3]), process_id=int(sys.argv[4]))
from jaxrobust.data import pipeline
from jaxrobust.data.dataset_config import DatasetConfig

mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
configs = [
    DatasetConfig("digits", data_dir=sys.argv[1], train_split="train[:26]", in_memory=True,
                  augmentation="crop_flip"),
    DatasetConfig("imagenet2012", data_dir=sys.argv[1], image_size=32),
]
sums = []
for config in configs:
    train = pipeline.train_batches(config, batch_size=8, seed=4, mesh=mesh)
    split = "train[:26]" if config.name == "digits" else None
    evaluation = pipeline.evaluation_batches(config, split, batch_size=8, mesh=mesh)
    for batch in [next(train) for _ in range(4)] + list(evaluation):
        for name, array in sorted(batch.items()):
            for shard in array.addressable_shards:
                start = shard.index[0].start or 0
                for offset, row in enumerate(np.asarray(shard.data)):
                    sums.append([name, start + offset, int(np.asarray(row, np.int64).sum())])
    train.close()
    evaluation.close()
print("RESULT" + json.dumps(sums))
"""


def run_processes(script, data_dir, processes):
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.getcwd(),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // processes}",
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(script), data_dir, address, str(processes), str(process)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for process in range(processes)
    ]
    results = []
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        results += json.loads(output.partition("RESULT")[2])
    return sorted(results)


@pytest.mark.slow
def test_two_processes_make_the_batches_of_one(data_dir, tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    pipeline.describe(DatasetConfig("digits", data_dir=data_dir))  # Prepared once, beforehand.
    one, two = (run_processes(script, data_dir, count) for count in (1, 2))
    assert len(one) > 200
    assert one == two


def test_corrupt_image_reaches_the_consumer_with_its_place(tmp_path):
    write_imagenet(tmp_path, 8, damaged={("validation", 3)})
    config = DatasetConfig("imagenet2012", data_dir=str(tmp_path), image_size=32)
    batches = pipeline.evaluation_batches(config, None, batch_size=2, mesh=mesh())
    with batches, pytest.raises(ValueError, match=r"image [0-7] of imagenet2012 validation"):
        list(batches)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_damaged_file_of_records_is_named(tmp_path, in_memory):
    config = DatasetConfig("digits", data_dir=str(tmp_path), in_memory=in_memory)
    pipeline.describe(config)
    path = next(tmp_path.rglob("*test.array_record*"))
    content = bytearray(path.read_bytes())
    content[40_000] ^= 1
    path.write_bytes(content)
    sentence = rf"^Cannot read image \d+ of digits test from {path}, which is damaged .*prepare"
    with pytest.raises(ValueError, match=sentence) as error:
        for _ in pipeline.evaluation_batches(config, None, batch_size=90, mesh=mesh()):
            pass
    assert "\n" not in str(error.value)
    path.write_bytes(content[: len(content) // 2])
    sources._count_records.cache_clear()
    with pytest.raises(ValueError, match=rf"Cannot open split 'test' of digits.* {path} ") as error:
        pipeline.describe(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("axis_type", list(jax.sharding.AxisType))
def test_meshes_of_any_axis_type_are_taken(config, axis_type):
    typed = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    with pipeline.train_batches(config, batch_size=8, seed=0, mesh=typed) as batches:
        batch = next(batches)
    assert batch["image"].sharding.mesh.axis_types == (jax.sharding.AxisType.Auto,)
    assert len(batch["image"].sharding.device_set) == 8


def test_close_ends_the_threads(data_dir):
    config = DatasetConfig("imagenet2012", data_dir=data_dir, image_size=32)
    batches = pipeline.train_batches(config, batch_size=4, seed=0, mesh=mesh())
    next(batches)
    assert any(thread.name == "batches" for thread in threading.enumerate())
    batches.close()
    batches.close()
    assert not any(thread.name == "batches" for thread in threading.enumerate())
    with pytest.raises(ValueError, match="closed"):
        next(batches)
    batches = pipeline.train_batches(config, batch_size=4, seed=0, mesh=mesh())
    next(batches)
    del batches
    assert not any(thread.name == "batches" for thread in threading.enumerate())


def test_reopening_compiles_nothing(data_dir, caplog):
    config = DatasetConfig("digits", data_dir=data_dir, augmentation="crop_flip")
    for attempt in range(2):
        batches = pipeline.train_batches(config, batch_size=16, seed=attempt, mesh=mesh(2))
        with batches, jax.log_compiles(), caplog.at_level("WARNING"):
            take(batches, 3)
        compiled = [r for r in caplog.records if "Finished XLA compilation" in r.message]
        assert bool(compiled) == (attempt == 0)
        caplog.clear()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cifar11"}, "'cifar11'.*cifar10"),
        ({"name": "textured_shapes/shape31"}, "shape31"),
        ({"name": "cifar10"}, r"python -m jaxrobust.data.prepare cifar10 --data_dir="),
        ({"name": "imagenet2012", "train_split": "training"}, "'training'.*train, validation"),
        ({"name": "digits", "train_split": "train[:7x]"}, r"train\[:7x\]"),
        ({"name": "digits", "augmentation": "crop-flip"}, "'crop-flip'.*'crop_flip'"),
        ({"name": "digits", "in_memory": "yes"}, "in_memory.*'yes'"),
        ({"name": "digits", "workers": -1}, "workers.*-1"),
        ({"name": "digits", "image_size": 0}, "image_size.*0"),
        ({"name": "digits", "image_size": 32, "resize_size": 16}, "resize_size.*32.*16"),
        ({"name": "digits", "corrupt_images": "skip"}, "corrupt_images.*'skip'"),
        ({"name": "digits", "corrupt_images": "ignore"}, "corrupt_images.*'ignore'"),
        ({"name": "digits", "path": "/pictures"}, "path.*'/pictures'"),
        ({"name": "image_folder"}, "path.*None"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_sentence(data_dir, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        pipeline.describe(DatasetConfig(data_dir=data_dir, **options))
    assert "\n" not in str(error.value)


def test_wrong_batches_are_refused(data_dir):
    config = DatasetConfig("digits", data_dir=data_dir)
    with pytest.raises(ValueError, match=r"multiple of the 8 devices.*12"):
        pipeline.train_batches(config, batch_size=12, seed=0, mesh=mesh(8))
    with pytest.raises(ValueError, match=r"seed.*-1"):
        pipeline.train_batches(config, batch_size=8, seed=-1, mesh=mesh())
    other = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    with pytest.raises(ValueError, match=r"axis 'data'.*batch"):
        pipeline.train_batches(config, batch_size=8, seed=0, mesh=other)
    with pytest.raises(ValueError, match="Unknown split 'cue_conflict'"):
        pipeline.evaluation_batches(config, "cue_conflict", batch_size=8, mesh=mesh())


def test_record_count_is_compared_with_the_description(tmp_path):
    write_imagenet(tmp_path, 9)
    file = next(tmp_path.rglob("dataset_info.json"))
    description = json.loads(file.read_text())
    description["splits"][0]["shardLengths"] = ["12"]
    file.write_text(json.dumps(description))
    config = DatasetConfig("imagenet2012", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="9 records in 'train' where its description states 12"):
        pipeline.describe(config)


def test_mocked_data_sources_work():
    buffer = io.BytesIO()
    Image.fromarray(np.full((50, 60, 3), 7, np.uint8)).save(buffer, "JPEG")
    records = [{"image": buffer.getvalue(), "label": i, "file_name": ""} for i in range(6)]
    with tfds.testing.mock_data(as_data_source_fn=lambda *args, **kwargs: records):
        config = DatasetConfig("imagenet2012", image_size=32)
        assert pipeline.describe(config).train_examples == 6
        with pipeline.train_batches(config, batch_size=6, seed=0, mesh=mesh()) as batches:
            assert sorted(np.asarray(next(batches)["label"])) == list(range(6))


@pytest.mark.parametrize(
    ("most", "devices", "size", "count"),
    [(256, 1, 180, 2), (256, 8, 184, 2), (1000, 1, 360, 1), (8, 8, 8, 45), (7, 1, 7, 52)],
)
def test_evaluation_batches_are_padded_to_what_is_there(data_dir, most, devices, size, count):
    config = DatasetConfig(name="digits", data_dir=str(data_dir))
    options = {"batch_size": most, "mesh": mesh(devices)}
    with pipeline.evaluation_batches(config, "test", **options) as batches:
        assert batches.num_examples == 360
        assert (batches.batch_size, len(batches)) == (size, count)
        masks = np.concatenate([batch["mask"] for batch in batches])
    assert len(masks) == size * count
    assert masks[:360].all()
    assert not masks[360:].any()
