"""Data: every format, made to fit the model, and every way in which it may not."""

import gzip
import struct
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from onnxsnn.data import Dataset, Preprocessing, load, parse_numbers, parse_scale
from onnxsnn.errors import DataError, UsageError
from onnxsnn.inputs import InputSpec

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)
GRAY = InputSpec("x", (None, 1, 4, 5), FLOAT)
RGB = InputSpec("x", (None, 3, 4, 5), FLOAT)
NHWC = InputSpec("x", (None, 4, 5, 3), FLOAT)
FLAT = InputSpec("x", (None, 20), FLOAT)
TOKENS = InputSpec("ids", (None, None), INT)

gray = np.arange(6 * 20, dtype=np.uint8).reshape(6, 4, 5)
rgb = np.random.default_rng(0).integers(0, 255, (6, 3, 4, 5)).astype(np.uint8)


def npy(folder, values, name="x.npy"):
    np.save(folder / name, values)
    return folder / name


def npz(folder, **arrays):
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


def idx(path, values, kind=0x08, dtype="u1"):
    values = np.asarray(values)
    content = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    content += values.astype(dtype).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def whole(data):
    """All samples as one feed."""
    return next(data.batches(len(data)))[0]


def test_npy_is_read_and_cast(tmp_path):
    data = load(npy(tmp_path, rgb), [RGB])
    feed = whole(data)["x"]
    assert feed.dtype == np.float32
    np.testing.assert_array_equal(feed, rgb)
    assert data.labels is None


def test_npz_arrays_have_their_usual_names(tmp_path):
    data = load(npz(tmp_path, x=rgb, y=np.arange(6)), [RGB])
    np.testing.assert_array_equal(data.labels, np.arange(6))
    assert data.labels.dtype == np.int64


def test_npz_arrays_may_be_named(tmp_path):
    path = npz(tmp_path, train=rgb, test=rgb[::-1], right=np.arange(6), wrong=np.zeros(6, int))
    data = load(path, [RGB], array="test", label_array="right")
    np.testing.assert_array_equal(whole(data)["x"], rgb[::-1])
    np.testing.assert_array_equal(data.labels, np.arange(6))


def test_npz_with_one_array_beside_the_labels_needs_no_name(tmp_path):
    assert len(load(npz(tmp_path, whatever=rgb, labels=np.zeros(6, int)), [RGB])) == 6


def test_npz_serves_several_inputs_by_name(tmp_path):
    mask = InputSpec("mask", (None, None), INT)
    ids = np.arange(12).reshape(3, 4)
    data = load(npz(tmp_path, ids=ids, mask=ids % 2), [TOKENS, mask])
    assert set(whole(data)) == {"ids", "mask"}
    assert whole(data)["ids"].dtype == np.int64


def test_npz_without_a_usual_name_lists_what_is_there(tmp_path):
    with pytest.raises(DataError, match="--array: a, b"):
        load(npz(tmp_path, a=rgb, b=rgb), [RGB])
    with pytest.raises(DataError, match="no array 'c', but a, b"):
        load(npz(tmp_path, a=rgb, b=rgb), [RGB], array="c")


def test_input_without_an_array_is_refused(tmp_path):
    with pytest.raises(DataError, match="no array for input 'mask'; make what is one"):
        load(npz(tmp_path, ids=np.ones((2, 3), int)), [TOKENS, InputSpec("mask", (None, 3), INT)])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_finds_its_labels_beside_the_images(tmp_path, suffix):
    path = idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", gray)
    idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", np.arange(6))
    data = load(path, [GRAY])
    np.testing.assert_array_equal(whole(data)["x"][:, 0], gray)
    np.testing.assert_array_equal(data.labels, np.arange(6))


@pytest.mark.parametrize(
    ("samples", "labels"),
    [
        ("gg-images.idx3-ubyte.gz", "gg-labels.idx1-ubyte.gz"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"),
    ],
)
def test_labels_beside_may_be_gzipped_or_not_and_written_with_a_dot(tmp_path, samples, labels):
    path = idx(tmp_path / samples, gray)
    idx(tmp_path / labels, np.arange(6))
    np.testing.assert_array_equal(load(path, [GRAY]).labels, np.arange(6))


def test_idx_without_labels_beside_has_none(tmp_path):
    assert load(idx(tmp_path / "images", gray), [GRAY]).labels is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        [(0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
    ),
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.integers(0, 99),
)
def test_idx_of_any_type_and_rank_is_read(tmp_path, kind, shape, seed):
    values = np.random.default_rng(seed).integers(-100, 100, shape).astype(kind[1])
    spec = InputSpec("x", (None, *shape[1:]), FLOAT)
    data = load(idx(tmp_path / "any", values, *kind), [spec])
    np.testing.assert_array_equal(whole(data)["x"], values.astype(np.float32))


@pytest.mark.parametrize("cut", [2, 9, 40])
def test_idx_cut_short_is_refused(tmp_path, cut):
    path = idx(tmp_path / "images", gray)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="images"):
        load(path, [GRAY])


def test_gzip_cut_short_is_refused(tmp_path):
    path = idx(tmp_path / "images.gz", gray)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        load(path, [GRAY])


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.bin"])
def test_file_of_another_format_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no data at all")
    with pytest.raises(DataError, match=name):
        load(tmp_path / name, [GRAY])


def test_missing_file_is_refused(tmp_path):
    for name in ("gone.npy", "gone.npz", "gone"):
        with pytest.raises(DataError, match=r"cannot be read: No such file"):
            load(tmp_path / name, [GRAY])


def images(folder, mode, count=2):
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        for number in range(count):
            values = np.full((8, 10, 3), 40 * number + (100 if label == "dog" else 0), np.uint8)
            Image.fromarray(values).convert(mode).save(folder / label / f"{number}.png")
    return folder


@pytest.mark.parametrize("spec", [GRAY, RGB, NHWC])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_image_folders_are_classes(tmp_path, spec, mode):
    data = load(images(tmp_path, mode), [spec])
    np.testing.assert_array_equal(data.labels, [0, 0, 1, 1])
    feed = whole(data)["x"]
    assert feed.shape == (4, *spec.shape[1:])
    np.testing.assert_allclose(feed.mean(axis=(1, 2, 3)), [0, 40, 100, 140])


def test_a_limit_takes_samples_of_every_class_and_reads_no_other_image(tmp_path):
    folder = images(tmp_path, "RGB", count=4)
    (folder / "cat" / "1.png").write_text("no image")
    data = load(folder, [RGB], limit=4)
    np.testing.assert_array_equal(data.labels, [0, 0, 1, 1])
    np.testing.assert_allclose(whole(data)["x"].mean(axis=(1, 2, 3)), [0, 80, 100, 180])


def test_a_limit_of_an_array_is_spread_over_it(tmp_path):
    data = load(npz(tmp_path, x=rgb, y=np.arange(6)), [RGB], limit=3)
    np.testing.assert_array_equal(data.labels, [0, 2, 4])
    np.testing.assert_array_equal(whole(data)["x"], rgb[::2])
    assert len(load(npz(tmp_path, x=rgb), [RGB], limit=7)) == 6


def test_parts_are_spread_and_hold_every_sample_once():
    first, second = Dataset({"x": rgb}, np.arange(6)).parted(2)
    np.testing.assert_array_equal(first.labels, [0, 3])
    np.testing.assert_array_equal(second.labels, [1, 2, 4, 5])
    np.testing.assert_array_equal(second.inputs["x"], rgb[[1, 2, 4, 5]])


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("spec", [RGB, NHWC])
def test_images_of_a_folder_come_in_the_model_s_layout(tmp_path, spec, layout):
    data = load(images(tmp_path, "RGB"), [spec], preprocessing=Preprocessing(layout=layout))
    assert whole(data)["x"].shape == (4, *spec.shape[1:])


def save_image(folder, values, name):
    (folder / "cat").mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / "cat" / name)


@pytest.mark.parametrize("spec", [GRAY, RGB])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_of_16_bits_are_scaled_to_8(tmp_path, spec, suffix):
    eight = np.linspace(0, 255, 20).astype(int).reshape(4, 5)
    save_image(tmp_path, np.minimum(eight * 257 + 100, 65535).astype(np.uint16), f"x.{suffix}")
    feed = whole(load(tmp_path, [spec]))["x"][0]
    np.testing.assert_array_equal(feed, np.broadcast_to(eight, feed.shape))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_images_whose_range_is_not_known_are_refused(tmp_path, dtype):
    save_image(tmp_path, np.ones((4, 5), dtype), "x.tif")
    with pytest.raises(DataError, match=r"x\.tif: is an image of 32-bit numbers"):
        load(tmp_path, [GRAY])


def test_image_that_cannot_be_read_is_named(tmp_path):
    images(tmp_path, "RGB")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"notes\.txt"):
        load(tmp_path, [RGB])


def test_folder_in_a_class_folder_is_refused(tmp_path):
    images(tmp_path, "RGB")
    (tmp_path / "dog" / "small").mkdir()
    with pytest.raises(DataError, match="small: is a folder in a class folder"):
        load(tmp_path, [RGB])


def test_image_that_a_link_does_not_lead_to_is_named(tmp_path):
    images(tmp_path, "RGB")
    (tmp_path / "cat" / "2.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"2\.png: is no image that can be read"):
        load(tmp_path, [RGB])


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="no class folders"):
        load(tmp_path, [RGB])


def test_images_need_an_input_of_known_size(tmp_path):
    with pytest.raises(DataError, match="fixed size"):
        load(images(tmp_path, "RGB"), [InputSpec("x", (None, 3, None, None), FLOAT)])


def test_missing_pillow_names_the_extra(tmp_path, monkeypatch):
    folder = images(tmp_path, "RGB")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"onnxsnn\[images\]"):
        load(folder, [RGB])


def test_labels_of_a_file_of_their_own(tmp_path):
    samples, labels = npy(tmp_path, rgb), np.array([3, 1, 4, 1, 5, 9])
    (tmp_path / "y.txt").write_text("\n".join(map(str, labels)))
    files = [
        npy(tmp_path, labels, "y.npy"),
        npy(tmp_path, labels[:, None], "column.npy"),
        npy(tmp_path, labels.astype(float), "float.npy"),
        npz(tmp_path, y=labels),
        idx(tmp_path / "y.gz", labels),
        tmp_path / "y.txt",
    ]
    for file in files:
        np.testing.assert_array_equal(load(samples, [RGB], labels=file).labels, labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(5), "6 samples and 5 labels"),
        (np.arange(6) - 1, "one is -1"),
        (np.arange(6) + 0.5, "whole numbers"),
        (np.array([0, 1, 2, 3, 4, np.inf]), "whole numbers"),
        (np.array([0, 1, 2, 3, 4, np.nan]), "whole numbers"),
        (np.array([0, 1, 2, 3, 4, 2**63], np.uint64), "whole numbers"),
        (np.arange(12).reshape(6, 2), "one per sample"),
        (np.array(list("abcdef")), "whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    with pytest.raises(DataError, match=message):
        load(npy(tmp_path, rgb), [RGB], labels=npy(tmp_path, labels, "y.npy"))


def test_labels_that_do_not_fit_are_named_by_their_own_file(tmp_path):
    with pytest.raises(DataError, match=r"y\.npy: labels count from 0"):
        load(npy(tmp_path, rgb), [RGB], labels=npy(tmp_path, np.arange(6) - 1, "y.npy"))


def test_label_array_is_looked_for_in_the_labels_file_where_there_is_one(tmp_path):
    np.savez(tmp_path / "labels.npz", wrong=np.zeros(6, int), right=np.arange(6))
    samples = npz(tmp_path, x=rgb, y=np.zeros(6, int))
    data = load(samples, [RGB], labels=tmp_path / "labels.npz", label_array="right")
    np.testing.assert_array_equal(data.labels, np.arange(6))


def test_labels_that_are_not_wanted_are_not_read(tmp_path):
    path = npz(tmp_path, a=rgb, b=np.array(["no", "labels", None]))
    for names in ({"label_array": "b"}, {"array": "a", "label_array": "gone"}):
        assert load(path, [RGB], labelled=False, **names).labels is None
    images = idx(tmp_path / "t10k-images-idx3-ubyte", gray)
    (tmp_path / "t10k-labels-idx1-ubyte").write_text("none")
    assert load(images, [GRAY], labels="gone.txt", labelled=False).labels is None


def test_labels_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "y.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="labels cannot be read"):
        load(npy(tmp_path, rgb), [RGB], labels=tmp_path / "y.txt")


def test_images_without_a_channel_axis_get_one(tmp_path):
    assert whole(load(npy(tmp_path, gray), [GRAY]))["x"].shape == (6, 1, 4, 5)
    last = InputSpec("x", (None, 4, 5, 1), FLOAT)
    assert whole(load(npy(tmp_path, gray), [last]))["x"].shape == (6, 4, 5, 1)


def test_flat_models_take_images(tmp_path):
    np.testing.assert_array_equal(
        whole(load(npy(tmp_path, gray), [FLAT]))["x"], gray.reshape(6, -1)
    )


def test_layout_of_the_file_is_transposed_to_the_model_s(tmp_path):
    last, first = npy(tmp_path, rgb.transpose(0, 2, 3, 1), "last.npy"), npy(tmp_path, rgb)
    for path, layout in ((last, "nhwc"), (first, "nchw")):
        for spec, expected in ((RGB, rgb), (NHWC, rgb.transpose(0, 2, 3, 1))):
            data = load(path, [spec], preprocessing=Preprocessing(layout=layout))
            np.testing.assert_array_equal(whole(data)["x"], expected)


def test_one_channel_moves_to_the_model_s_axis_undeclared(tmp_path):
    last = InputSpec("x", (None, 4, 5, 1), FLOAT)
    to_last = whole(load(npy(tmp_path, gray[:, None]), [last]))["x"]
    np.testing.assert_array_equal(to_last, gray[..., None])
    to_first = whole(load(npy(tmp_path, gray[..., None]), [GRAY]))["x"]
    np.testing.assert_array_equal(to_first, gray[:, None])


def test_several_channels_are_not_moved_undeclared(tmp_path):
    with pytest.raises(DataError, match=r"\[6, 4, 5, 3\].*\[N, 3, 4, 5\]"):
        load(npy(tmp_path, rgb.transpose(0, 2, 3, 1)), [RGB])


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_behind_a_square_image_are_channels_last(tmp_path, channels):
    spec = InputSpec("x", (None, 8, 8, channels), FLOAT)
    last = np.random.default_rng(0).integers(0, 255, (6, 8, 8, channels)).astype(np.uint8)
    for layout in (None, "nhwc"):
        data = load(npy(tmp_path, last), [spec], preprocessing=Preprocessing(layout=layout))
        np.testing.assert_array_equal(whole(data)["x"], last)
    first = npy(tmp_path, np.moveaxis(last, 3, 1))
    data = load(first, [spec], preprocessing=Preprocessing(layout="nchw"))
    np.testing.assert_array_equal(whole(data)["x"], last)


def test_layout_is_left_where_only_the_file_s_own_fits(tmp_path):
    spec = InputSpec("x", (None, 8, 6, 4), FLOAT)
    values = np.zeros((5, 8, 6, 4), np.float32)
    data = load(npy(tmp_path, values), [spec], preprocessing=Preprocessing(layout="nhwc"))
    assert whole(data)["x"].shape == (5, 8, 6, 4)


def test_flat_models_take_the_file_s_order_whatever_its_layout(tmp_path):
    last = rgb.transpose(0, 2, 3, 1)
    spec = InputSpec("x", (None, 60), FLOAT)
    data = load(npy(tmp_path, last), [spec], preprocessing=Preprocessing(layout="nhwc"))
    np.testing.assert_array_equal(whole(data)["x"], last.reshape(6, -1))


def test_doubles_keep_their_precision_in_a_model_of_doubles(tmp_path):
    spec = InputSpec("x", (None, 2), np.dtype(np.float64))
    feed = whole(load(npy(tmp_path, np.full((1, 2), 0.1)), [spec]))["x"]
    np.testing.assert_array_equal(feed, np.full((1, 2), 0.1))


def test_samples_stay_in_the_file_s_dtype_until_they_are_fed(tmp_path):
    assert load(npy(tmp_path, rgb), [RGB]).inputs["x"].dtype == np.uint8


def test_preprocessing_is_scale_then_mean_then_std(tmp_path):
    preprocessing = Preprocessing(scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    feed = whole(load(npy(tmp_path, rgb), [RGB], preprocessing=preprocessing))["x"]
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    np.testing.assert_allclose(feed, (rgb / 255 - mean) / std, atol=1e-6)


def test_preprocessing_is_per_channel_wherever_the_channels_are(tmp_path):
    preprocessing = Preprocessing(mean=(1.0, 2.0, 3.0), layout="nchw")
    feed = whole(load(npy(tmp_path, rgb), [NHWC], preprocessing=preprocessing))["x"]
    np.testing.assert_allclose(feed, rgb.transpose(0, 2, 3, 1) - [1.0, 2.0, 3.0])


def test_one_mean_serves_all_channels(tmp_path):
    feed = whole(load(npy(tmp_path, rgb), [RGB], preprocessing=Preprocessing(mean=(5.0,))))["x"]
    np.testing.assert_allclose(feed, rgb - 5.0)


def test_one_number_for_each_sample_is_preprocessed_too():
    spec, preprocessing = InputSpec("x", (None,), FLOAT), Preprocessing(2.0, (1.0,), (2.0,))
    data = Dataset({"x": np.float32([1, 2, 3])}, None, (spec,), preprocessing)
    np.testing.assert_array_equal(whole(data)["x"], [0.5, 1.5, 2.5])


def test_integers_are_not_preprocessed(tmp_path):
    ids = np.arange(12).reshape(3, 4)
    data = load(npy(tmp_path, ids), [TOKENS], preprocessing=Preprocessing(scale=0.5))
    np.testing.assert_array_equal(whole(data)["ids"], ids)


def test_whole_doubles_serve_as_integers_and_others_do_not(tmp_path):
    assert whole(load(npy(tmp_path, np.ones((2, 3))), [TOKENS]))["ids"].dtype == np.int64


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 2.0**64])
def test_doubles_that_are_no_int64_are_refused_as_integers(tmp_path, value):
    with pytest.raises(DataError, match="whole numbers of type int64"):
        load(npy(tmp_path, np.full((2, 3), value)), [TOKENS])


@pytest.mark.parametrize("value", [-1, 256])
def test_integers_are_not_wrapped_into_a_narrower_type(tmp_path, value):
    spec = InputSpec("x", (None, 3), np.dtype(np.uint8))
    with pytest.raises(DataError, match="whole numbers of type uint8"):
        load(npy(tmp_path, np.full((2, 3), value)), [spec])


def test_mean_is_not_measured_against_integer_inputs(tmp_path):
    data = load(
        npz(tmp_path, x=rgb, ids=np.ones((6, 4), int)),
        [RGB, TOKENS],
        preprocessing=Preprocessing(mean=(1.0, 2.0, 3.0)),
    )
    np.testing.assert_array_equal(whole(data)["ids"], np.ones((6, 4)))


def test_samples_of_a_model_that_takes_one_say_what_to_do(tmp_path):
    one = InputSpec("x", (None, 5), FLOAT)  # [4, 5], whose first axis passes for the samples'
    with pytest.raises(DataError, match="one sample at a time, export it for a batch"):
        load(npy(tmp_path, np.zeros((6, 4, 5), np.float32)), [one])
    with pytest.raises(DataError, match=r"\[N, 5\]$"):
        load(npy(tmp_path, np.zeros((6, 4, 6), np.float32)), [one])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((6, 3, 4, 6), np.float32), r"\[6, 3, 4, 6\].*\[N, 3, 4, 5\]"),
        (np.zeros((6, 4, 5), np.float32), r"\[6, 4, 5\]"),
        (np.zeros((0, 3, 4, 5), np.float32), "no samples"),
        (np.float32(3), r"shape \[\]"),
        (np.zeros((2, 3, 4, 5), complex), "complex128"),
        (np.full((2, 3, 4, 5), "a"), "numbers are needed"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, values, message):
    with pytest.raises(DataError, match=message):
        load(npy(tmp_path, values), [RGB])


def test_zero_samples_for_a_flat_model_are_refused(tmp_path):
    with pytest.raises(DataError, match="no samples"):
        load(npy(tmp_path, np.zeros((0, 4, 5))), [FLAT])


FOUR = InputSpec("x", (None, 4), FLOAT)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64, np.bool_])
def test_samples_given_in_python_take_the_model_s_type(dtype):
    data = Dataset({"x": np.ones((3, 4), dtype)}).fitted([FOUR])
    ((feeds, _),) = data.batches(8)
    assert feeds["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("values", "spec", "message"),
    [
        (np.ones((3, 5)), FOUR, r"\[3, 5\].*\[N, 4\]"),
        (np.ones((3, 4, 1)), FOUR, r"\[3, 4, 1\]"),
        (np.ones(3), InputSpec("x", (), FLOAT), "fix-inputs MODEL x=NUMBER"),
        (np.full((3, 4), 0.5), InputSpec("x", (None, 4), INT), "whole numbers"),
        (np.full((3, 4), "a"), FOUR, "numbers are needed"),
    ],
)
def test_samples_given_in_python_that_do_not_fit_are_refused(values, spec, message):
    with pytest.raises(DataError, match=message):
        Dataset({"x": values}).fitted([spec])


@pytest.mark.parametrize("inputs", [{}, {"x": [[1.0]]}])
def test_what_is_no_array_is_refused(inputs):
    with pytest.raises(DataError, match="array"):
        Dataset(inputs)


def test_a_single_number_is_no_data():
    with pytest.raises(DataError, match="axis of samples"):
        Dataset({"x": np.float32(1)})


def test_scalar_input_is_refused(tmp_path):
    with pytest.raises(DataError, match="'x' takes a single number"):
        load(npy(tmp_path, np.float32(3)), [InputSpec("x", (), FLOAT)])


def test_what_numpy_would_unpickle_is_refused_in_our_words(tmp_path):
    words = np.array(["a", {}], object)
    (tmp_path / "text.npz").write_text("no arrays at all")
    for path in (npy(tmp_path, words), npz(tmp_path, x=words), tmp_path / "text.npz"):
        for files in ((path, None), (npy(tmp_path, rgb, "rgb.npy"), path)):
            with pytest.raises(DataError, match="it holds no arrays of numbers; save such with"):
                load(files[0], [RGB], labels=files[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, value):
    data = load(npy(tmp_path, np.full((2, 3, 4, 5), value, np.float32)), [RGB])
    with pytest.raises(DataError, match=r"\.npy: .* NaN or infinity"):
        whole(data.slice(1, None))


@pytest.mark.filterwarnings("error")
def test_doubles_too_large_for_the_model_are_refused_without_a_warning(tmp_path):
    data = load(npy(tmp_path, np.full((2, 20), 1e300)), [FLAT])
    with pytest.raises(DataError, match="NaN or infinity as float32"):
        whole(data)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_mean_and_std_of_another_length_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=rf"\.npy: {name} has 2 values, and input 'x' 3 channels"):
        load(npy(tmp_path, rgb), [RGB], preprocessing=Preprocessing(**{name: (1.0, 2.0)}))


def test_std_of_zero_is_refused(tmp_path):
    with pytest.raises(UsageError, match="0 cannot be divided by"):
        load(npy(tmp_path, rgb), [RGB], preprocessing=Preprocessing(std=(0.0,)))


def test_several_inputs_need_names(tmp_path):
    with pytest.raises(DataError, match=r"several inputs; give an \.npz with x, ids"):
        load(npy(tmp_path, rgb), [RGB, TOKENS])


@given(st.integers(1, 40), st.integers(1, 50))
def test_batches_are_the_whole_in_order(count, size):
    data = Dataset({"x": np.arange(count)}, np.arange(count) * 2)
    batches = list(data.batches(size))
    np.testing.assert_array_equal(np.concatenate([f["x"] for f, _ in batches]), np.arange(count))
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), np.arange(count) * 2)
    assert all(len(feed["x"]) <= size for feed, _ in batches)


@pytest.mark.parametrize("size", [0, -1])
def test_batches_of_no_samples_are_refused(size):
    with pytest.raises(UsageError, match="at least one sample"):
        next(Dataset({"x": np.arange(3)}).batches(size))


def test_slice_is_of_samples_and_labels():
    data = Dataset({"x": np.arange(9)}, np.arange(9)).slice(2, 6)
    np.testing.assert_array_equal(data.inputs["x"], np.arange(2, 6))
    np.testing.assert_array_equal(data.labels, np.arange(2, 6))


def test_inputs_of_different_lengths_are_refused():
    with pytest.raises(DataError, match="different numbers of samples"):
        Dataset({"a": np.zeros(3), "b": np.zeros(4)})


@pytest.mark.parametrize(
    "labels",
    [np.array([0, -1, 2]), np.array([0.5, 1, 2]), np.zeros((3, 1), int), [0, 1, 2]],
    ids=["negative", "fractions", "two axes", "a list"],
)
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(DataError, match="labels are one whole number for each sample"):
        Dataset({"x": np.zeros((3, 2))}, labels)


def test_layout_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'hwc' is neither nchw nor nhwc"):
        load(npy(tmp_path, rgb), [RGB], preprocessing=Preprocessing(layout="hwc"))


def test_an_input_given_once_for_all_samples_is_told_to_become_a_constant():
    with pytest.raises(DataError, match=r"'rate': 1}; .*fix-inputs MODEL rate=NUMBER"):
        Dataset({"a": np.zeros(3), "rate": np.zeros(1)})


def test_scales_and_lists_are_parsed():
    assert parse_scale("1/255") == pytest.approx(1 / 255)
    assert parse_scale("0.5") == 0.5
    assert parse_numbers("0.5,1,2e-1") == (0.5, 1.0, 0.2)


@pytest.mark.parametrize("text", ["1/0", "1/", "1/2/3", "half", "nan", "1e400", "1e999999999", ""])
def test_scale_that_is_no_finite_number_is_refused(text):
    with pytest.raises(UsageError, match="is no number or fraction"):
        parse_scale(text)


@pytest.mark.parametrize("text", ["1;2", "1,", "1,nan", "inf", ""])
def test_list_that_is_not_of_finite_numbers_is_refused(text):
    with pytest.raises(UsageError, match="is no number, nor a list"):
        parse_numbers(text)


def test_npz_under_the_name_of_an_npy_is_refused(tmp_path):
    npz(tmp_path, x=rgb).rename(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"x\.npy: cannot be read"):
        load(tmp_path / "x.npy", [RGB])


def test_array_may_have_the_usual_name_of_labels(tmp_path):
    data = load(npz(tmp_path, x=rgb, y=rgb[::-1]), [RGB], array="y")
    np.testing.assert_array_equal(whole(data)["x"], rgb[::-1])
    assert data.labels is None


def test_labels_npz_of_several_arrays_needs_a_name(tmp_path):
    with pytest.raises(DataError, match="--label-array: a, b"):
        load(npy(tmp_path, rgb), [RGB], labels=npz(tmp_path, a=np.arange(6), b=np.arange(6)))


def test_labels_npz_without_arrays_is_refused(tmp_path):
    with pytest.raises(DataError, match="--label-array: there is none"):
        load(npy(tmp_path, rgb), [RGB], labels=npz(tmp_path))


def test_text_labels_are_told_by_content(tmp_path):
    (tmp_path / "labels").write_text("0\n1\n2\n3\n4\n5\n")
    data = load(npy(tmp_path, rgb), [RGB], labels=tmp_path / "labels")
    np.testing.assert_array_equal(data.labels, np.arange(6))


@pytest.mark.filterwarnings("error")
def test_empty_labels_are_refused_without_a_warning(tmp_path):
    (tmp_path / "y.txt").write_text("")
    with pytest.raises(DataError, match="6 samples and 0 labels"):
        load(npy(tmp_path, rgb), [RGB], labels=tmp_path / "y.txt")


def test_missing_labels_are_named_once(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: labels cannot be read: No such file or dir"):
        load(npy(tmp_path, rgb), [RGB], labels=tmp_path / "gone.txt")


def test_idx_longer_than_its_header_says_is_refused(tmp_path):
    path = idx(tmp_path / "images", gray)
    path.write_bytes(path.read_bytes() + b"..")
    with pytest.raises(DataError, match="holds 122 bytes of values"):
        load(path, [GRAY])


def test_idx_with_a_damaged_size_is_refused(tmp_path):
    path = idx(tmp_path / "images", gray)
    path.write_bytes(path.read_bytes()[:4] + b"\xff" * 4 + path.read_bytes()[8:])
    with pytest.raises(DataError, match="its header"):
        load(path, [GRAY])


def test_hidden_folders_and_files_are_no_classes_and_no_images(tmp_path):
    images(tmp_path, "RGB")
    (tmp_path / ".cache").mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "cat" / name).write_bytes(b"no image")
    np.testing.assert_array_equal(load(tmp_path, [RGB]).labels, [0, 0, 1, 1])


def test_image_of_too_many_pixels_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"0\.png"):
        load(images(tmp_path, "RGB"), [RGB])


@pytest.mark.parametrize(
    ("name", "content"),
    [("0.png", b"\x89PNG\r\n\x1a\n" + bytes(40)), ("0.ppm", b"P6\n" + b"1" * 40 + b"\n")],
)
def test_image_that_is_damaged_is_named(tmp_path, name, content):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: is no image that can be read"):
        load(tmp_path, [RGB])


def test_npz_may_hold_what_is_no_array(tmp_path):
    path = npz(tmp_path, x=rgb, y=np.arange(6))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README", "images and labels")
    data = load(path, [RGB])
    np.testing.assert_array_equal(whole(data)["x"], rgb)
    np.testing.assert_array_equal(data.labels, np.arange(6))
    with pytest.raises(DataError, match="no array 'README', but x"):
        load(path, [RGB], array="README")


def test_damaged_labels_beside_images_are_named(tmp_path):
    images = idx(tmp_path / "t10k-images-idx3-ubyte.gz", gray)
    labels = idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.arange(6))
    labels.write_bytes(gzip.compress(labels.read_bytes())[:-9])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: labels cannot be read"):
        load(images, [GRAY])
