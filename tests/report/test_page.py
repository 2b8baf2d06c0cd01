import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cryoscape.analysis.analyze import analyze
from cryoscape.analysis.evaluation.evaluate import evaluate
from cryoscape.errors import InputError
from cryoscape.report.facts import list_files, settings
from cryoscape.report.page import write_report
from cryoscape.training.config import Config
from tests.analysis.fakes import chain_model, fake_run, write_truth


class Reader(HTMLParser):
    """Collects links, embedded JSON, element names and visible text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.json, self.figures, self.text, self._inside = [], {}, [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[key] for key in ("href", "src") if key in attrs]
        self._inside = (tag, attrs)
        if "figure" in attrs.get("class", "").split():
            self.figures.append(attrs["id"])

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        tag, attrs = self._inside or ("", {})
        if tag == "script" and attrs.get("type") == "application/json":
            self.json[attrs["id"]] = self.json.get(attrs["id"], "") + data
        elif tag not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    run = fake_run(folder / "my run")
    analyze(run, frames=7)
    level = np.linspace(-1.5, 1.5, 7)
    state = np.abs(run.embedding.z[:, :1] - level).argmin(axis=1)
    evaluate(run, write_truth(folder / "data", run, level, state))
    (run.path / "preflight.json").write_text(json.dumps({"frame": "corner", "sign": -1, "hand": "as given"}))
    path = write_report(run)
    return run, path, Reader(path.read_text(encoding="utf-8"))


def test_opens_offline(page):
    run, path, reader = page
    assert path == run.path / "report.html"
    assert path.stat().st_size < 8e6
    outside = [link for link in reader.links if re.match(r"(\w+:)?//", link)]
    assert outside == []
    assert path.read_text(encoding="utf-8").count("plotly.js v") == 1


def test_links_lead_to_files(page):
    run, _, reader = page
    links = [link for link in reader.links if not link.startswith("#")]
    assert "ensemble/pc1.cif" in links
    assert "open_in_chimerax.cxc" in links
    assert all((run.path / link).is_file() for link in links)
    anchors = {link[1:] for link in reader.links if link.startswith("#")}
    assert all(
        f'id="{anchor}"' in (run.path / "report.html").read_text(encoding="utf-8") for anchor in anchors
    )


def test_every_figure_has_its_data(page):
    _, _, reader = page
    names = "learning map-structures map-codes mixture residues histogram movie states populations"
    assert {f"fig-{name}" for name in names.split()} == set(reader.figures)
    for name in reader.figures:
        figure = json.loads(reader.json[f"data-{name}"])
        assert figure["data"]
    assert len(json.loads(reader.json["movie-frames"])["x"]) == 7
    ways = json.loads(reader.json["colourings"])
    assert [way["name"] for way in ways][:2] == ["group", "first component"]
    assert all(len(way["marker"]["color"]) == 400 for way in ways)


def test_says_what_was_found(page):
    _, _, reader = page
    text = " ".join("".join(reader.text).split())
    assert "Yes: the latent code is informative" in text
    assert "Recovered against true" in text
    assert "as given" in text
    assert "my run" in text
    assert "decoder.kind" in text


def test_plots_are_images(page):
    run, _, _ = page
    for name in ("learning_curve", "latent", "motion_per_residue", "rmsd_per_state"):
        with Image.open(run.path / "analysis" / f"{name}.png") as image:
            assert image.size[0] > 800
            assert len(image.convert("L").getcolors(256)) > 20


def test_an_unanalysed_run_still_has_a_page(tmp_path):
    run = fake_run(tmp_path)
    reader = Reader(write_report(run).read_text(encoding="utf-8"))
    assert reader.figures == ["fig-learning"]
    assert any("has not been analysed" in text for text in reader.text)


def test_a_run_without_anything_still_has_a_page(tmp_path):
    run = fake_run(tmp_path)
    run.metrics = {}
    assert Reader(write_report(run).read_text(encoding="utf-8")).figures == []


def test_collapse_is_named(tmp_path):
    run = fake_run(tmp_path, z=np.full((40, 3), 0.1), z_sd=1.0)
    analyze(run, frames=3)
    text = write_report(run).read_text(encoding="utf-8")
    assert "No: the latent code has collapsed" in text
    assert 'class="verdict collapsed"' in text


def test_names_cannot_break_the_page(tmp_path):
    """Chain names and settings come from files."""
    model = chain_model(20, chains="A")
    run = fake_run(
        tmp_path, n=60, model=model.__class__(**{**vars(model), "chain_id": np.full(20, "</script>")})
    )
    run.config = Config(preset="<b>bold</b> & </script>")
    analyze(run, frames=3, clusters=2, mixture=2)
    text = write_report(run).read_text(encoding="utf-8")
    assert "<b>bold</b>" not in text
    reader = Reader(text)
    assert len(reader.json) == len(reader.figures) + 2


def test_a_broken_preflight_file_is_named(tmp_path):
    run = fake_run(tmp_path)
    (tmp_path / "preflight.json").write_text("{")
    with pytest.raises(InputError, match=r"preflight\.json"):
        write_report(run)
    assert not (tmp_path / "report.html").exists()


def test_files_and_settings_are_listed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.safetensors").write_bytes(b"0" * 2_500_000)
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / ".partial-1").write_text("")
    found = list_files(tmp_path)
    assert [(entry.path, entry.size) for entry in found] == [
        ("config.yaml", "4 B"),
        ("checkpoints/last.safetensors", "2.5 MB"),
    ]
    assert settings({"a": {"b": None, "c": [1, 2]}, "d": True}) == [
        ("a.b", "–"),
        ("a.c", "1, 2"),
        ("d", "yes"),
    ]
