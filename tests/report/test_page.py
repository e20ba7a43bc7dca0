"""The report: one file that needs nothing else, whose figures are those of `evaluate --json`."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner

from onnxsnn import Dataset, IntegrateAndFire, convert, load_source
from onnxsnn.analysis.evaluate import Row, evaluate
from onnxsnn.cli import main
from onnxsnn.errors import DataError
from onnxsnn.report import gather, page
from onnxsnn.report.gather import RasterRow
from onnxsnn.session import Session
from tests.models import Builder, dataset, uniform
from tests.networks import STRUCTURES, cancelling_network, residual_network

X = uniform(40, 3, 8, 8)
VOID = {"meta", "link", "img", "wbr"}


class Page(HTMLParser):
    """A page taken apart: elements, figures by their key, and the JSON."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.figures, self.ids = [], [], [], []
        self.urls, self.json, self.keeps = [], "", True
        self.feed(text)
        self.data = json.loads(self.json)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.urls += [value for name, value in attrs.items() if name in ("src", "href")]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "data":
            self.figures.append([attrs["data-key"], attrs["value"], ""])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.keeps &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "data":
            self.figures[-1][2] += text
        if self.open and self.open[-1] == "script":
            self.json += text


def at(data, key):
    """What a dotted key means in the JSON; names of layers may hold dots themselves."""
    if key.startswith("layer_rates."):
        return data["layer_rates"][key.removeprefix("layer_rates.")]
    for part in key.split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


UNITS = {None: 1, "%": 0.01, "pJ": 1, "nJ": 1e3, "µJ": 1e6, "mJ": 1e9}


def says(text, value):
    """Whether a figure's text is the value, rounded to the text's last digit."""
    pattern = r"([-+]?[0-9,]+)(?:\.([0-9]+))?(?:e([-+][0-9]+))? ?(%|pJ|nJ|µJ|mJ)?"
    whole, decimals, exponent, unit = re.fullmatch(pattern, text).groups()
    digit = 10.0 ** (int(exponent or 0) - len(decimals or "")) * UNITS[unit]
    number = int(whole.replace(",", "") + (decimals or "")) * digit
    return abs(number - value) <= 0.501 * digit


def sign(data, key):
    """A gain in error is shown as the change of the error, which falls."""
    return -1 if key.endswith(".gain") and data["analysis"]["measure"] == "error" else 1


def check(text):
    """The page stands alone, is well formed, and its figures are those of its JSON."""
    found = Page(text)
    assert found.keeps
    assert not found.open
    assert len(found.ids) == len(set(found.ids))
    for url in found.urls:
        assert url.startswith(("data:", "#"))
        assert not url.startswith("#") or url[1:] in found.ids
    assert "http" not in re.sub(r"<script.*", "", text, flags=re.S)
    scripts = [attrs for tag, attrs in found.tags if tag == "script"]
    assert [attrs["type"] for attrs in scripts] == ["application/json"]
    for tag, attrs in found.tags:
        if tag == "svg":
            assert attrs["role"] == "img"
            assert attrs["aria-label"]
        if tag == "img":
            assert attrs["alt"]
    for key, value, shown in found.figures:
        assert json.loads(value) == at(found.data, key), key
        points = (
            100 if key.endswith(".gain") and found.data["analysis"]["measure"] != "error" else 1
        )
        assert says(shown, points * sign(found.data, key) * float(value)), (key, value, shown)
    return found


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    source = load_source(residual_network().save(folder / "model.onnx"))
    (values,) = Session(source.model).run({"x": X}).values()
    labels = np.where(np.arange(len(X)) < 5, (values.argmax(1) + 1) % 4, values.argmax(1))
    return source, convert(source, dataset(x=X), timesteps=4).snn, Dataset({"x": X}, labels)


def test_page_stands_alone_and_its_figures_are_those_of_its_json(network):
    source, snn, data = network
    found = check(page(gather("A network", snn, source, data)))
    assert len(found.figures) > 60
    headings = {attrs["id"] for tag, attrs in found.tags if tag == "section"}
    assert headings == {"time", "error", "fit", "rates", "spikes", "flips", "energy", "nodes"}


def test_page_where_no_number_comes_of_the_first_steps(tmp_path):
    """The logarithm of a sum of rates that are 0 still."""
    b = Builder((4,))
    b.gemm(6)
    b.relu()
    b.op("Log", b.op("ReduceSum", b.last, b.constant([1], np.int64)))
    source = load_source(b.save(tmp_path / "m.onnx"))
    data = dataset(x=uniform(8, 4))
    snn = convert(source, data, timesteps=8, neuron=IntegrateAndFire(0.0)).snn
    evaluation = evaluate(snn, data, ann=source)
    assert not np.isfinite(evaluation.rows[0].error)
    check_drawn(page(gather("m", snn, source, data)))


def check_drawn(text):
    """Every line is drawn, of numbers."""
    paths = [attrs["d"] for tag, attrs in Page(text).tags if tag == "path"]
    assert paths
    assert not any("nan" in path or "inf" in path for path in paths)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_page_of_every_structure_without_labels(tmp_path, structure):
    """Negative rates, images as outputs, one step."""
    source = load_source(STRUCTURES[structure]().save(tmp_path / "m.onnx"))
    (spec,) = source.inputs
    data = dataset(x=uniform(6, *spec.shape[1:]))
    snn = convert(source, data, timesteps=3).snn
    for steps in (1, 3):
        text = page(gather("m", snn, source, data, steps))
        found = check(text)
        heading = f"{found.data['analysis']['measure'].capitalize()} over time"
        assert text.count(f">{heading}<") == 2  # in the contents, and above the section
        neurons = ", ".join(dict.fromkeys(layer.neuron for layer in snn.layers))
        assert f"Neurons: {neurons}, " in text


def test_page_says_which_steps_the_outputs_leave_out(network):
    source, snn, data = network
    late = convert(source, dataset(x=X), timesteps=4, delay=2).snn
    assert "averaged from step 3 on" in page(gather("Late", late, source, data))
    assert "averaged from" not in page(gather("Plain", snn, source, data))


def test_page_says_that_neurons_were_made_to_fire_early(network):
    source, snn, data = network
    early = convert(source, dataset(x=X), timesteps=4, correct=True, anytime=True).snn
    assert "corrected layer by layer, to fire early, for T = 4" in page(
        gather("Early", early, source, data)
    )
    assert "to fire early" not in page(gather("Plain", snn, source, data))


def test_one_step_is_a_dot(network):
    """A line of one point would not be seen."""
    source, snn, data = network
    text = page(gather("One step", snn, source, data, 1))
    plots = re.findall(r'<svg class="plot".*?</svg>', text)
    lines = [drawing for drawing in plots if 'class="line' in drawing]
    assert len(lines) > 6
    assert all("<circle" in drawing for drawing in lines)
    assert "After 1 step the accuracy" in text or "of 1 step." in text


def logarithms(tmp_path, outputs):
    """A network whose outputs may be -inf, as an SNN and its source."""
    b = Builder((6,))
    b.gemm(8)
    b.relu()
    b.gemm(outputs)
    b.relu()
    b.op("Log")
    source = load_source(b.save(tmp_path / "m.onnx"))
    return convert(source, dataset(x=LOGS), timesteps=4).snn, source


LOGS = uniform(20, 6)


def test_all_samples_that_flip_are_counted_and_some_are_drawn(tmp_path):
    source = load_source(residual_network().save(tmp_path / "m.onnx"))
    x = uniform(48, 3, 8, 8, seed=2)
    snn = convert(source, dataset(x=x[:16]), timesteps=2, threshold="max").snn
    flips = gather("m", snn, source, dataset(x=x)).flips
    agreement = evaluate(snn, dataset(x=x), ann=source).rows[-1].agreement
    assert flips.differing == 48 - round(48 * agreement) > len(flips.drawn) == 6
    assert all(flip.snn != flip.ann for flip in flips.drawn)


def test_outputs_that_are_infinite_are_left_out_of_plots(tmp_path):
    found = gather("m", *logarithms(tmp_path, 3), dataset(x=LOGS))
    assert "NaN" not in page(found)
    assert all(np.isfinite(list(flip.outputs.values())).all() for flip in found.flips.drawn)


def test_outputs_that_no_error_relates_to_are_refused(tmp_path):
    with pytest.raises(DataError, match="all 0, or infinite"):
        gather("m", *logarithms(tmp_path, 1), dataset(x=LOGS))


def test_outputs_that_no_error_relates_to_in_some_steps_are_refused(tmp_path):
    source = load_source(cancelling_network().save(tmp_path / "m.onnx"))
    snn = convert(source, timesteps=4, threshold="trained").snn
    x = dataset(x=np.full((3, 1), 0.5, np.float32))  # both neurons give 0.5 after 4 steps
    with pytest.raises(DataError, match="all 0, or infinite"):
        gather("m", snn, source, x)


def test_names_are_escaped(tmp_path):
    b = Builder((3, 8, 8))
    b.conv(4)
    b.relu()
    b.nodes[-1].name = "</script><b>&\"'"
    b.head()
    source = load_source(b.save(tmp_path / "m.onnx"))
    data = dataset(x=uniform(6, 3, 8, 8))
    found = check(page(gather("<i>&", convert(source, data, timesteps=2).snn, source, data)))
    assert not any(tag in ("b", "i") and not attrs for tag, attrs in found.tags)
    assert found.data["analysis"]["layers"][0]["layer"] == "</script><b>&\"'"


def fifty_layers(network, timesteps):
    """A report of fifty layers over many timesteps, of which there are samples."""
    source, snn, data = network
    small = gather("Fifty layers", snn, source, data, 4)
    layers = []
    for i in range(50):
        layer = small.analysis.layers[i % 4]
        values = [1 / 3 + 1 / t for t in range(1, timesteps + 1)]
        curve = replace(layer.curve, layer=f"/layer.{i}/Relu", values=values)
        layers.append(replace(layer, layer=curve.layer, curve=curve))
    random = np.random.default_rng(0)
    rows = [Row(t, 0.9, 0.9 + t / 1e4, 1 / t, 0.1, 1e5 * t / 3) for t in range(1, timesteps + 1)]
    evaluation = replace(
        small.evaluation, rows=rows, layer_rates={layer.layer: 0.1 for layer in layers}
    )
    traces = {c: random.random(timesteps).tolist() for c in range(5)}
    energies = [
        replace(e, snn=[1e6 * t / 7 for t in range(timesteps)]) for e in small.energy.energies
    ]
    return replace(
        small,
        evaluation=evaluation,
        analysis=replace(small.analysis, layers=layers, costliest=layers[7].layer),
        energy=replace(
            small.energy,
            timesteps=timesteps,
            synaptic_operations=[1e6 * t / 9 for t in range(timesteps)],
            energies=energies,
            rows=small.energy.rows * 12,
        ),
        inspection=replace(small.inspection, rows=small.inspection.rows * 12),
        raster=[
            RasterRow(layer.layer, i, (random.random(timesteps) < 0.2).astype(float).tolist())
            for layer in layers
            for i in range(2)
        ],
        flips=replace(small.flips, drawn=[replace(small.flips.drawn[0], outputs=traces)] * 6),
    )


@pytest.mark.parametrize("timesteps", [8, 64, 256])
def test_fifty_layers_take_under_two_megabytes(network, timesteps):
    text = page(fifty_layers(network, timesteps))
    assert len(text.encode()) < 2_000_000
    check(text)


def call(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path, monkeypatch, network):
    """The network, its SNN and data as files, in the working folder."""
    monkeypatch.chdir(tmp_path)
    _, snn, data = network
    residual_network().save(tmp_path / "model.onnx")
    snn.save(tmp_path / "model.snn.onnx")
    np.savez("test.npz", x=X, y=data.labels)
    return tmp_path


WAYS = ("--ann", "model.onnx", "--data", "test.npz", "-T", 6, "--mac-energy", 3, "--ac-energy", 1)


def test_command_writes_what_evaluate_prints(folder):
    assert call("report", "model.snn.onnx", *WAYS, "-o", "r.html") == "report: r.html\n"
    found = check((folder / "r.html").read_text())
    printed = json.loads(
        call("evaluate", "model.snn.onnx", *WAYS, "--analyse", "--energy", "--json")
    )
    assert found.data == printed
    assert [e["model"]["name"] for e in printed["energy"]["energies"]][-1] == "your own"
    call("report", "model.snn.onnx", *WAYS)
    assert (folder / "model.snn.html").exists()


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, BROWSERS) if path), None)


def browse(path, *options):
    """A page in headless Chromium: its document after loading, and what the console says."""
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--v=0", *options, "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("size", ["1280,900", "500,900"])
@pytest.mark.parametrize("scheme", [0, 1])
def test_chromium_shows_it_without_a_complaint(folder, size, scheme):
    call("report", "model.snn.onnx", *WAYS, "-o", "r.html")
    printed = json.loads(
        call("evaluate", "model.snn.onnx", *WAYS, "--analyse", "--energy", "--json")
    )
    text, console = browse(
        folder / "r.html",
        f"--window-size={size}",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    assert console == []
    found = Page(text)
    assert found.data == printed
    assert len(found.figures) > 60
    for key, value, shown in found.figures:
        assert json.loads(value) == at(printed, key), key
        points = 100 if key.endswith(".gain") else 1
        assert says(shown, points * float(value)), (key, value, shown)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chromium_would_complain(folder):
    """The test above can fail: an error in a page is seen."""
    broken = folder / "broken.html"
    broken.write_text("<!doctype html><script>undefined_function()</script>")
    assert browse(broken)[1] != []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [390, 1200])
def test_page_is_no_wider_than_its_window(network, tmp_path, width):
    """On a phone too, with fifty layers: what is wider scrolls by itself."""
    text = page(fifty_layers(network, 32))
    probe = (
        "<script>addEventListener('load', () => document.body.dataset.width ="
        " document.documentElement.scrollWidth)</script>"
    )
    (tmp_path / "inner.html").write_text(text.replace("</body>", probe + "</body>"))
    (tmp_path / "outer.html").write_text(
        f'<!doctype html><iframe id=f src="inner.html" width={width} height=900></iframe><script>'
        "addEventListener('load', () => { document.body.dataset.width ="
        " f.contentDocument.body.dataset.width })</script>"
    )
    shown, _ = browse(
        tmp_path / "outer.html", "--window-size=1400,900", "--allow-file-access-from-files"
    )
    (found,) = re.findall(r'data-width="(\d+)"', shown)
    assert int(found) <= width
