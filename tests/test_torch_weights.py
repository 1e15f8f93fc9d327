import json
import pickle
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxrobust import Classifier, models, torch_weights
from tests import tiny, torch_states
from tests.torch_writer import LegacyWriter, Made, Name, Writer, pickled

FIXTURES = Path(__file__).parent / "fixtures"
MEAN, STD = (0.5, 0.45, 0.25), (0.25, 0.2, 0.3)
WIDTHS = {3: 3, 1000: 10, 4096: 16, 9216: 36 * 16, 784 * 16: 784}
PICTURES = np.random.default_rng(0).random((3, 72, 65, 3), np.float32)


def small_state(name="resnet18"):
    """A state dict with PyTorch's own names and counters, of a network with few channels."""
    fixture = np.load(FIXTURES / f"torch_logits_{name}.npz")
    shapes = {}
    for key, shape in json.loads(str(fixture["shapes"])).items():
        outputs, *others = shape or [None]
        inputs = [WIDTHS.get(size, size // 16) for size in others[:1]]
        shapes[key] = shape and (WIDTHS.get(outputs, outputs // 16), *inputs, *others[1:])
    state = torch_states.state(shapes, {})
    for seed, (key, value) in enumerate(state.items()):
        if key.endswith(("running_mean", "running_var")):
            value += np.random.default_rng(seed).uniform(0, 1, value.shape).astype(np.float32)
    counters = {key: np.array(7) for key in shapes if key.endswith("num_batches_tracked")}
    return {key: state.get(key, counters.get(key)) for key in shapes}


def write(path, content, kind=Writer):
    """Saves as PyTorch does; arrays that are one object share their data."""
    writer, written = kind(), {}

    def save(value):
        if isinstance(value, dict):
            return {key: save(each) for key, each in value.items()}
        if isinstance(value, np.ndarray):
            if id(value) not in written:
                written[id(value)] = writer.tensor(value)
            return written[id(value)]
        return value

    (writer.zip if kind is Writer else writer.legacy)(path, save(content))
    return path


def load(path, name="resnet18", width=4, **options):
    return torch_weights.load(path, name, width=width, **options)


def same(classifier, other):
    """Whether two classifiers are equal to the last bit."""
    leaves, others = (jax.tree.leaves_with_path(each.variables) for each in (classifier, other))
    return classifier.model == other.model and all(
        path == where and np.array_equal(value, expected)
        for (path, value), (where, expected) in zip(leaves, others, strict=True)
    )


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def channels(values, *shape):
    return np.array(values, np.float32).reshape(shape)


def robustness(state, **changes):
    """What robustness.train saves of a DataParallel AttackerModel."""
    mean, std = channels(MEAN, 3, 1, 1), channels(STD, 3, 1, 1)
    normalizers = ("module.normalizer.new_", "module.attacker.normalize.new_")
    buffers = {
        f"{one}{key}": value for one in normalizers for key, value in (("mean", mean), ("std", std))
    }
    weights = under("module.model.", state) | under("module.attacker.model.", state)
    return buffers | weights | changes


def training(**entries):
    """Beside the weights of a checkpoint."""
    momentum = {"state": {0: {"momentum_buffer": np.ones((4, 3), np.float32)}}}
    arguments = Made("cox.utils.Parameters", opcode=b"\x81", state={"params": {"eps": 4.0}})
    schedule = Made("torch.optim.lr_scheduler.LambdaLR", opcode=b"\x81", state={"step": 3})
    return entries | {"optimizer": momentum, "args": arguments, "schedule": schedule, "epoch": 90}


STATE = small_state()
OTHER = {key: value + 1 for key, value in STATE.items()}
NORMALIZER = {"normalize.mean": channels(MEAN, 1, 3, 1, 1), "normalize.std": channels(STD, 3)}
LAYOUTS = {
    "robustness": training(model=robustness(STATE)),
    "robustness, older": training(state_dict=robustness(STATE)),
    "RobustBench": NORMALIZER | under("model.", STATE),
    "RobustBench, parallel": under("module.", NORMALIZER | under("model.", STATE)),
    "a Sequential": {"0.mean": channels(MEAN, 3), "0.std": channels(STD, 3)} | under("1.", STATE),
}
WITHOUT_NORMALIZER = {
    "torchvision": STATE,
    "fast_adversarial": training(state_dict=under("module.", STATE), best_prec1=np.array(55.0)),
    "averages beside": {"state_dict_ema": OTHER, "model": STATE, "model_ema": OTHER},
    "averages within": under("ema_model.module.", OTHER) | under("online.module.", STATE),
    "averages alone": under("ema_model.module.", STATE),
    "averages of averages": under("ema.", STATE) | under("swa.", STATE),
    "compiled": {"net": under("_orig_mod.", STATE)},
    "partly float64": {
        key: value.astype(np.float64) if value.ndim == 1 else value for key, value in STATE.items()
    },
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The classifier of STATE, its images normalised by MEAN and STD."""
    path = tmp_path_factory.mktemp("expected") / "resnet18.safetensors"
    save_file({key: value for key, value in STATE.items() if value.ndim}, path)
    return load(path, mean=MEAN, std=STD)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_with_a_normalizer(tmp_path, expected, layout):
    loaded = load(write(tmp_path / "a.pt", LAYOUTS[layout]))
    assert (loaded.model.mean, loaded.model.std) == (MEAN, STD)
    assert loaded.model.num_classes == 10
    assert same(loaded, expected)
    np.testing.assert_array_equal(loaded(PICTURES), expected(PICTURES))


@pytest.mark.parametrize("layout", WITHOUT_NORMALIZER)
def test_layouts_without_one(tmp_path, expected, layout):
    path = write(tmp_path / "a.pt", WITHOUT_NORMALIZER[layout])
    assert same(load(path, mean=MEAN, std=STD), expected)
    imagenet = load(path).model
    assert imagenet.mean == (0.485, 0.456, 0.406)
    assert imagenet.std == (0.229, 0.224, 0.225)


def test_formats(tmp_path, expected):
    legacy = write(tmp_path / "a.pth", LAYOUTS["robustness"], LegacyWriter)
    assert same(load(legacy), expected)
    save_file(robustness(STATE), tmp_path / "a.ckpt")
    assert same(load(tmp_path / "a.ckpt"), expected)


def test_weights_are_where_they_belong(expected):
    """By hand, for one of each kind."""
    params, statistics = expected.variables["params"], expected.variables["batch_stats"]
    kernel = params["layer3_0"]["conv1"]["kernel"]
    assert kernel[2, 0, 5, 9] == STATE["layer3.0.conv1.weight"][9, 5, 2, 0]
    assert params["fc"]["kernel"][5, 9] == STATE["fc.weight"][9, 5]
    shortcut = statistics["layer2_0"]["downsample"]["norm"]
    np.testing.assert_array_equal(shortcut["var"], STATE["layer2.0.downsample.1.running_var"])
    np.testing.assert_array_equal(shortcut["mean"], STATE["layer2.0.downsample.1.running_mean"])
    np.testing.assert_array_equal(params["bn1"]["scale"], STATE["bn1.weight"])
    assert params["fc"]["kernel"].dtype == np.float32


def test_the_first_dense_layer_sees_rows_columns_channels(tmp_path):
    state = small_state("alexnet_bn")
    loaded = load(write(tmp_path / "a.pth", state), "alexnet", hidden=16)
    kernel = loaded.variables["params"]["fc6"]["kernel"].reshape(6, 6, 16, 16)
    weight = state["classifier.1.weight"].reshape(16, 16, 6, 6)
    assert kernel[1, 4, 7, 3] == weight[3, 7, 1, 4]


@pytest.mark.parametrize(
    ("fields", "published"),
    [
        ({"name": "alexnet", "batch_norm": False}, 61_100_840),
        ({"name": "wide_resnet50_2"}, 68_883_240),
    ],
)
def test_sizes_are_the_published_ones(fields, published):
    model = models.create(num_classes=1000, **fields)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == published


def test_alexnet_with_and_without_batch_norm(tmp_path):
    for name, batch_norm in (("alexnet", False), ("alexnet_bn", True)):
        path = write(tmp_path / name, small_state(name))
        assert load(path, "alexnet", hidden=16).model.batch_norm is batch_norm
        with pytest.raises(ValueError, match="must hold the tensors of alexnet"):
            load(path, "alexnet", hidden=16, batch_norm=not batch_norm)


def test_alexnet_of_blocks(tmp_path):
    """The paper's first author's other form: convolution, BatchNorm and ReLU at one position."""
    state = small_state("alexnet_bn")
    places = {0: "0.conv.0", 1: "0.conv.1", 4: "2.conv.0", 5: "2.conv.1", 8: "4.conv.0"}
    places |= {9: "4.conv.1", 11: "5.conv.0", 12: "5.conv.1", 14: "6.conv.0", 15: "6.conv.1"}
    blocks = {}
    for key, value in state.items():
        room, place, ending = key.split(".")
        moved = places[int(place)] if room == "features" else place
        blocks[f"{room}.{moved}.{ending}"] = value
    one, other = (
        load(write(tmp_path / "a.pth", content), "alexnet", hidden=16)
        for content in (state, blocks)
    )
    assert same(one, other)


def test_small_resnets_are_those_for_cifar(tmp_path):
    state = small_state("resnet18_small")
    assert "linear.weight" in state
    path = write(tmp_path / "a.pt", training(model=robustness(state)))
    assert load(path, "resnet18_small").model.mean == MEAN
    message = r"1 other \(module.model.conv1.weight of shape \(4, 3, 3, 3\) instead of \(4, 3, 7,"
    with pytest.raises(ValueError, match=message):
        load(path, "resnet18")


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet8_small", "alexnet", "alexnet_small", "vgg13_bn", "vgg11_small"]
)
def test_saved_and_loaded_is_the_same(tmp_path, name):
    hidden = {} if "resnet" in name else {"hidden": 8}
    model = models.create(name, num_classes=7, width=4, mean=MEAN, std=(1 / 3, 0.1, 1.0), **hidden)
    classifier = Classifier(model, tiny.drawn_variables(model, (64, 64, 3)))
    torch_weights.save(classifier, tmp_path / "new" / "a.safetensors")
    loaded = load(tmp_path / "new" / "a.safetensors", name, **hidden)
    assert same(loaded, classifier)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]
    torch_weights.save(loaded, tmp_path / "b.safetensors")
    first, second = (load_file(tmp_path / one) for one in ("new/a.safetensors", "b.safetensors"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["resnet8_small", "alexnet", "vgg11_small"])
def test_one_channel_is_saved_and_loaded(tmp_path, name):
    hidden = {} if "resnet" in name else {"hidden": 8}
    model = models.create(name, num_classes=7, width=4, mean=(0.3,), std=(0.4,), **hidden)
    classifier = Classifier(model, tiny.drawn_variables(model, (64, 64, 1)))
    torch_weights.save(classifier, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors", name, **hidden)
    assert same(loaded, classifier)
    grey = PICTURES[..., :1]
    np.testing.assert_array_equal(loaded(grey), classifier(grey))


def test_one_channel_of_pytorch(tmp_path):
    """The number of channels is the first convolution's, not that of a block's of its name."""
    grey = changed(conv1__weight=STATE["conv1.weight"][:, :1].copy())
    path = write(tmp_path / "a.pt", training(model=under("module.", grey)))
    model = load(path, mean=(0.3,), std=(0.4,)).model
    assert (model.mean, model.std) == ((0.3,), (0.4,))
    with pytest.raises(ValueError, match=r"mean must be given for images \(height, width, 1\), "):
        load(path, std=(0.4,))
    with pytest.raises(ValueError, match=r"mean must be 1 number from 0 to 1, .*got \(0.5, 0.45, "):
        load(path, mean=MEAN, std=(0.4,))
    buffers = {"normalize.mean": channels(0.3, 1, 1, 1), "normalize.std": channels([0.4], 1)}
    model = load(write(tmp_path / "b.pt", buffers | under("model.", grey))).model
    assert (model.mean, model.std) == ((0.3,), (0.4,))


def test_strides_are_kept(tmp_path):
    """The weights do not show them."""
    fields = {"width": 4, "stem_stride": 2, "downsampling": "average_pool"}
    model = models.create("resnet8_small", num_classes=7, **fields)
    classifier = Classifier(model, tiny.drawn_variables(model, (32, 32, 3)))
    path = tmp_path / "a.safetensors"
    torch_weights.save(classifier, path)
    assert same(load(path, "resnet8_small"), classifier)
    with pytest.raises(ValueError, match=r"stem_stride must be 2, as .*a.safetensors says, got 1"):
        load(path, "resnet8_small", stem_stride=1)
    with pytest.raises(ValueError, match=r"downsampling must be average_pool, as .*, got stride"):
        load(path, "resnet8_small", downsampling="stride")
    torch_weights.save(Classifier(model.clone(downsampling="stride"), classifier.variables), path)
    assert load(path, "resnet8_small").model.downsampling == "stride"
    with pytest.raises(ValueError, match=r"downsampling must be stride, as .*, got average_pool"):
        load(path, "resnet8_small", downsampling="average_pool")
    # PyTorch's files do not say it.
    save_file(load_file(path), path)
    assert load(path, "resnet8_small", **fields).model.downsampling == "average_pool"


def test_loaded_and_saved_is_the_same_file(tmp_path, expected):
    torch_weights.save(expected, tmp_path / "a.safetensors")
    saved = load_file(tmp_path / "a.safetensors")
    assert saved.keys() == {key for key, value in STATE.items() if value.ndim}
    assert all(np.array_equal(value, STATE[key]) for key, value in saved.items())
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["mean"]) == list(MEAN)
    assert metadata["format"] == "pt"


def test_pytorch_takes_what_was_saved(tmp_path, expected):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    norm = torch.nn.BatchNorm2d(4)
    torch_weights.save(expected, tmp_path / "a.safetensors")
    state = safetensors_torch.load_file(tmp_path / "a.safetensors")
    norm.load_state_dict(
        {key.removeprefix("bn1."): value for key, value in state.items() if key.startswith("bn1.")}
    )
    np.testing.assert_array_equal(norm.running_var.numpy(), STATE["bn1.running_var"])


def test_half_precision_is_widened(tmp_path):
    halves = {key: value.astype(ml_dtypes.bfloat16) for key, value in STATE.items() if value.ndim}
    save_file(halves, tmp_path / "a.safetensors")
    params = load(tmp_path / "a.safetensors").variables["params"]
    assert params["conv1"]["kernel"].dtype == np.float32
    np.testing.assert_array_equal(params["bn1"]["scale"], halves["bn1.weight"].astype(np.float32))


def changed(**changes):
    """STATE with other tensors; None removes one. Dots are written as __."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in (STATE | changes).items() if value is not None}


ONE = np.ones(1, np.float32)
RESNET34 = small_state("resnet34")
WRONG = {
    "missing": (
        changed(fc__bias=None, conv1__weight=None),
        r"a.pt must hold the tensors of resnet18 \(layout: torchvision\) and no others, got 2 "
        r"missing \((conv1.weight, fc.bias|fc.bias, conv1.weight)\)\.$",
    ),
    "left over": (
        under("module.", changed(fc2__weight=ONE)),
        r"under 'module.' and no others, got 1 left over \(module.fc2.weight\)\.$",
    ),
    "left over outside": (
        under("module.", STATE) | {"head.weight": ONE},
        r"got 1 left over \(head.weight\)\.$",
    ),
    "counters apart": (
        changed(counter=np.array(3), layer9__0__bn1__num_batches_tracked=np.array(3)),
        r"got 1 left over \(counter\)\.$",
    ),
    "shape": (
        changed(layer4__1__conv2__weight=np.zeros((32, 32, 1, 1), np.float32)),
        r"1 other \(layer4.1.conv2.weight of shape \(32, 32, 1, 1\) instead of \(32, 32, 3, 3\)\)",
    ),
    "no channels": (
        changed(conv1__weight=np.zeros((4, 0, 7, 7), np.float32)),
        r"1 other \(conv1.weight of shape \(4, 0, 7, 7\) instead of \(4, 3, 7, 7\)\)",
    ),
    "quantised": (
        changed(bn1__weight=np.ones(4, np.int8)),
        r"1 other \(bn1.weight of dtype int8 instead of a floating point one\)",
    ),
    "two networks": (
        under("teacher.", STATE) | under("student.", OTHER),
        r"a.pt holds two different networks, under '(teacher|student)\.' and under '",
    ),
    "another copy": (
        robustness(STATE, **{"module.attacker.model.fc.bias": STATE["fc.bias"] + 1}),
        r"two different networks, under 'module.model.' and under 'module.attacker.model.'",
    ),
    "two normalisations": (
        robustness(STATE, **{"module.attacker.normalize.new_std": channels(MEAN, 3, 1, 1)}),
        r"several normalisations, std \(0.25, 0.2, 0.3\) and \(0.5, 0.45, 0.25\); expected one",
    ),
    "std of 0": (
        robustness(
            STATE,
            **{
                f"module.{name}.new_std": np.zeros((3, 1, 1), np.float32)
                for name in ("normalizer", "attacker.normalize")
            },
        ),
        r"std in .*a.pt must be 3 numbers above 0 to 1, one for .*, got \(0.0, 0.0, 0.0\)",
    ),
    "a normalisation of bytes": (
        {"mean": channels([123.5, 116.0, 103.5], 3)} | under("model.", STATE),
        r"mean in .*a.pt must be .* on the scale \[0, 1\]; divide by 255 .*, got \(123.5, 116",
    ),
    "another architecture, averaged": (
        under("ema.", RESNET34),
        r"of resnet18 .* under 'ema\.' and no others, got 80 left over \(ema.layer1.2.conv1.wei",
    ),
    "left over beside an average": (
        under("ema_model.module.", STATE) | {"ema_model.projector.weight": ONE},
        r"got 1 left over \(ema_model.projector.weight\)\.$",
    ),
    "left over inside": (
        changed(layer1__0__ema__weight=ONE),
        r"got 1 left over \(layer1.0.ema.weight\)\.$",
    ),
    "two averages": (
        under("ema.", STATE) | under("swa.", OTHER),
        r"two different networks, under '(ema|swa)\.' and under '(ema|swa)\.'",
    ),
    "not a number": (
        changed(fc__bias=np.array([0.0] * 9 + [np.nan], np.float32)),
        r"got 1 other \(fc.bias with numbers that are not finite\)\.$",
    ),
    "infinite": (
        changed(fc__bias=np.array([0.0] * 9 + [1e300])),
        r"got 1 other \(fc.bias with numbers that are not finite\)\.$",
    ),
    "no weights": (
        {"epoch": 3, "optimizer": {"state": {}}},
        r"must hold a state dict, alone or as 'model' or .*, got a dict of 'epoch', 'optimizer'\.$",
    ),
    "nothing": ({}, r"got a dict of nothing\.$"),
    "a list": ([1, 2], r"got a list\.$"),
    "a module": (
        Made("torchvision.models.resnet.ResNet", opcode=b"\x81", state={"training": True}),
        r"got an object of torchvision.models.resnet.ResNet; save its state_dict\(\) instead\.$",
    ),
    "a module in a checkpoint": (
        {"epoch": 3, "best": np.ones(1, np.float32), "model": Made("nets.Net", opcode=b"\x81")},
        r"got an object of nets.Net as 'model'; save its state_dict\(\) instead\.$",
    ),
    "an entry of another name": (
        {"epoch": 3, "optimizer": {"state": {}}, "ema_state_dict": STATE},
        r"got a dict of 'epoch', .*; save 'ema_state_dict', which holds tensors, alone\.$",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path, kind):
    content, message = WRONG[kind]
    path = write(tmp_path / "a.pt", content)
    with pytest.raises(ValueError, match=message) as raised:
        load(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "alexnet", "vgg11"])
def test_weights_of_another_architecture(tmp_path, name):
    path = write(tmp_path / "a.pt", STATE)
    with pytest.raises(
        ValueError, match=rf"must hold the tensors of {name} .* \d+ missing \("
    ) as e:
        load(path, name)
    assert len(str(e.value)) < 600


def test_pre_activation_networks_are_refused(tmp_path):
    """Those of fast_adversarial for CIFAR have the names of ours, in another order."""
    state = {
        key: value
        for key, value in small_state("resnet18_small").items()
        if not key.startswith("bn1.") and "shortcut.1." not in key
    }
    state |= {f"bn.{key}": np.ones(32, np.float32) for key in ("weight", "bias")}
    with pytest.raises(ValueError, match=r"16 missing \(.*2 left over \(bn.weight, bn.bias\)"):
        load(write(tmp_path / "a.pt", state), "resnet18_small")


def test_options(tmp_path):
    path = write(tmp_path / "a.pt", LAYOUTS["robustness"])
    assert load(path, num_classes=10, std=(0.5, 0.5, 0.5)).model.std == (0.5, 0.5, 0.5)
    assert load(path, std=(0.5, 0.5, 0.5)).model.mean == MEAN
    with pytest.raises(ValueError, match=r"num_classes must be 10, as the last layer in .*, got 5"):
        load(path, num_classes=5)
    with pytest.raises(
        ValueError, match=r"mean must be 3 numbers from 0 to 1, one for .* \(0.5,\)"
    ):
        load(path, mean=(0.5,))
    for wrong in ((123.5, 116.0, 103.5), (-0.5, 0.5, 0.5), (0.5, 0.5, np.nan)):
        with pytest.raises(ValueError, match=r"on the scale \[0, 1\]; divide by 255 what .*, got"):
            load(path, mean=wrong)
    with pytest.raises(ValueError, match=r"std must be 3 numbers above 0 to 1, .*; divide by 255"):
        load(path, std=(58.4, 57.1, 57.4))
    assert load(path, mean=(0, 0, 0), std=(1, 1, 1)).model.std == (1, 1, 1)
    with pytest.raises(ValueError, match="Unknown model 'resnet19'"):
        load(path, "resnet19")
    with pytest.raises(TypeError, match="model must be one of ResNet, AlexNet, VGG, got a TinyN"):
        torch_weights.load(path, "tests.tiny:TinyNetwork", num_classes=10)
    with pytest.raises(FileNotFoundError, match=r"nowhere.pt does not exist"):
        load(tmp_path / "nowhere.pt")


def test_save_errors(tmp_path, expected):
    with pytest.raises(ValueError, match=r"path must end in .safetensors, got .*a.pth"):
        torch_weights.save(expected, tmp_path / "a.pth")
    with pytest.raises(TypeError, match="classifier must be a Classifier, got a function"):
        torch_weights.save(lambda image: image, tmp_path / "a.safetensors")
    own = Classifier(tiny.TinyNetwork(num_classes=3), {})
    with pytest.raises(TypeError, match="model must be one of ResNet, AlexNet, VGG, got a TinyNet"):
        torch_weights.save(own, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_that_executes_code_is_refused(tmp_path):
    executed = tmp_path / "executed"
    hook = Made(Name("os", "mkdir"), str(executed))
    path = write(tmp_path / "a.pt", training(state_dict=STATE, hook=hook))
    with pytest.raises(ValueError, match=r"a.pt is refused: it names os.mkdir, which can execute"):
        load(path)
    assert not executed.exists()
    pickle.loads(pickled(hook))
    assert executed.exists()  # so it is indeed dangerous


def test_a_truncated_file(tmp_path):
    path = write(tmp_path / "a.pt", LAYOUTS["robustness"])
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"a.pt is cut off"):
        load(path)
