import base64
import json

import numpy as np
import pytest
from PIL import Image

from cryoscape.analysis.analyze import analyze
from cryoscape.analysis.evaluation.evaluate import EVALUATION
from cryoscape.analysis.evaluation.evaluation import VolumeEvaluation
from cryoscape.analysis.evaluation.latent_metrics import Neighbourhood
from cryoscape.analysis.evaluation.latents import LatentEvaluation
from cryoscape.analysis.evaluation.maps import MapEvaluation, MapScore
from cryoscape.analysis.records import write_json
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.report import map_plots, raycast
from cryoscape.report.map_series import position_label, read_walk
from cryoscape.report.page import write_report
from tests.analysis.fakes import fake_map_run
from tests.report.test_page import Reader


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = fake_map_run(tmp_path_factory.mktemp("page") / "maps run", n=150)
    analyze(run, frames=5, clusters=3, components=2)
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(raycast, "_VOXELS", 40)
        quick.setattr(map_plots, "_SIZE", 120)
        path = write_report(run)
    return run, path, Reader(path.read_text(encoding="utf-8"))


def test_every_figure_has_its_data(page):
    _, _, reader = page
    names = "learning map-maps map-codes mixture histogram movie"
    assert {f"fig-{name}" for name in names.split()} == set(reader.figures)
    learning = json.loads(reader.json["data-fig-learning"])
    assert "restraint" in json.dumps(learning)  # this record has them


def test_every_frame_is_a_closed_surface_in_the_frame_of_the_scene(page):
    _, _, reader = page
    track = json.loads(reader.json["movie-frames"])
    assert len(track["mesh"]) == len(track["label"]) == 5
    assert track["label"][0].endswith(" %")
    for mesh in track["mesh"]:
        steps = np.frombuffer(base64.b64decode(mesh["v"]), "<u2").reshape(-1, 3)
        triangles = np.frombuffer(base64.b64decode(mesh["f"]), "<u2").reshape(-1, 3)
        colours = np.frombuffer(base64.b64decode(mesh["c"]), "u1")
        assert triangles.max() == len(steps) - 1 == len(colours) - 1
        edges = np.sort(np.concatenate([triangles[:, p] for p in ([0, 1], [1, 2], [2, 0])]), axis=1)
        assert set(np.unique(edges, axis=0, return_counts=True)[1]) == {2}
    vertices = steps * track["step"] + track["origin"]
    shown = json.loads(reader.json["data-fig-movie"])["layout"]["scene"]
    for axis, name in enumerate("xyz"):
        low, high = shown[f"{name}axis"]["range"]
        assert low - 0.1 <= vertices[:, axis].min() <= vertices[:, axis].max() <= high + 0.1
    # The blob that moves is the one that is red.
    assert np.corrcoef(colours, vertices[:, 1])[0, 1] > 0.5


def test_pictures_are_within_the_page_and_in_the_folder(page):
    run, _, reader = page
    inside = [link for link in reader.links if link.startswith("data:image/png;base64,")]
    names = ["pc1_maps", "pc2_maps", "map_slices", "cluster_maps"]
    assert len(inside) == len(names)
    for name in names:
        with Image.open(run.path / "analysis" / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(10**6)) > 200
    with Image.open(run.path / "analysis" / "pc1.gif") as movie:
        assert movie.n_frames == 8  # there and back without showing the ends twice


def test_says_what_was_found(page):
    run, _, reader = page
    text = " ".join("".join(reader.text).split())
    assert "Do the images tell maps apart?" in text
    assert "An ensemble of maps" in text
    assert "24voxels of 4 Å" in text
    assert "residues" not in text
    links = [link for link in reader.links if not link.startswith(("#", "data:"))]
    assert "maps/pc1_000.mrc" in links
    assert "maps/pc1_001.mrc" not in links  # a series is one line
    assert all((run.path / link).is_file() for link in links)


def test_a_page_without_the_maps_is_still_a_page(tmp_path):
    run = fake_map_run(tmp_path, n=60)
    analyze(run, frames=3, clusters=2, mixture=1)
    (tmp_path / "maps" / "pc1_001.mrc").unlink()
    assert read_walk(tmp_path, AnalysisSummary.read(tmp_path)) is None
    reader = Reader(write_report(run).read_text(encoding="utf-8"))
    assert "fig-movie" not in reader.figures


def test_positions_are_said_in_their_unit():
    assert position_label(0.123, "density") == "+12 %"
    assert position_label(-1.5, "A") == "-1.50 Å"


def test_the_comparison_with_true_maps_is_shown(tmp_path):
    run = fake_map_run(tmp_path, n=40)
    run.metrics = {}
    score = MapScore(maps=7, auc=0.37, auc_sd=0.02, auc_run=0.38, in_band=0.913, resolution=14.2)
    one = MapScore(maps=7, auc=0.31, auc_sd=0.0, auc_run=0.33, in_band=0.71, resolution=19.5)
    maps = MapEvaluation(64, 6.0, 0.48, 64, 6.0, 0.48, score, None, one, accuracy=0.8, majority=0.2)
    codes = LatentEvaluation(40, "cv", (Neighbourhood(10, 5.0, 0.44, 0.25, 0.9),), ())
    found = VolumeEvaluation(40, maps, codes, warnings=("few particles",))
    write_json(tmp_path / EVALUATION, found.to_dict())
    reader = Reader(write_report(run).read_text(encoding="utf-8"))
    text = " ".join(" ".join(reader.text).split())
    assert "Maps against true maps" in text
    assert "0.913" in text
    assert "one map: 0.710" in text
    assert "few particles." in text
    assert "CA rmsd" not in text
