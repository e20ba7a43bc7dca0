"""The demo: a network and data that come with the package, and a table of methods."""

from importlib.resources import files

from onnxsnn.analysis.comparison import compare
from onnxsnn.demo import DEMO_WAYS, demo_data, demo_source


def test_data_and_network_are_under_a_megabyte():
    folder = files("onnxsnn.demo")
    sizes = [len((folder / name).read_bytes()) for name in ("model.onnx", "data.npz")]
    assert sum(sizes) < 1_000_000


def test_network_has_batchnorm_a_residual_add_and_pooling():
    operators = {node.op_type for node in demo_source().model.graph.node}
    assert {"Conv", "BatchNormalization", "Relu", "Add"} <= operators
    assert any("Pool" in operator for operator in operators)


def test_data_are_a_thousand_labelled_images_and_unlabelled_ones_to_calibrate_on():
    calibration, test = demo_data()
    assert len(test) == 1000
    assert set(test.labels) == set(range(10))
    assert calibration.labels is None
    feed = next(test.batches(10))[0]["image"]
    assert 0 <= feed.min() < feed.max() <= 1


def test_fit_is_ahead_of_the_other_methods_and_near_the_ann():
    calibration, test = demo_data()
    comparison = compare(demo_source(), calibration, test, DEMO_WAYS, (4, 16))
    few, many = (
        {str(way): rows[i].accuracy for way, rows in comparison.rows.items()} for i in range(2)
    )
    assert few["fit"] > max(few["max"], few["percentile"], few["bound"])
    assert few["fit, corrected"] > few["fit"]
    assert few["fit, signed, corrected"] == max(few.values())
    assert comparison.ann_accuracy > 0.9
    assert many["fit, corrected"] > comparison.ann_accuracy - 0.01
