import numpy as np

from cryoscape.report import movie as module
from cryoscape.report.movie import movie
from tests.analysis.fakes import chain_model, swing


def frames_of(model, count=5):
    return model.coords + np.linspace(-1, 1, count)[:, None, None] * swing(model, "B", 4.0)


def test_lines_break_between_chains_and_at_gaps():
    model = chain_model(40)
    model = model.subset(np.r_[0:8, 14:40])  # a gap in chain A
    figure, tracks = movie(model, frames_of(model), np.linspace(-2, 2, 5))
    line = tracks["x"][0]
    assert [i for i, value in enumerate(line) if value is None] == [8, 15]
    assert len(line) == 34 + 2
    assert len(figure.data[2].line.color) == len(figure.data[2].text) == len(line)


def test_frames_hold_the_coordinates():
    model = chain_model(40)
    coords = frames_of(model)
    figure, tracks = movie(model, coords, np.linspace(-2, 2, 5))
    assert tracks["position"] == [-2, -1, 0, 1, 2]
    centre = coords.reshape(-1, 3).mean(axis=0)
    for k, axis in enumerate("xyz"):
        shown = np.array([v for v in tracks[axis][4] if v is not None])
        np.testing.assert_allclose(shown, coords[4, :, k] - centre[k], atol=0.006)
    assert figure.data[tracks["trace"]].line.cmax > 5


def test_large_complexes_are_thinned(monkeypatch):
    monkeypatch.setattr(module, "_BEADS", 50)
    model = chain_model(400, chains="ABCD")
    _, tracks = movie(model, frames_of(model), np.zeros(5))
    assert 50 <= len(tracks["x"][0]) <= 62


def test_a_motionless_structure_can_be_drawn():
    model = chain_model(20, chains="A")
    figure, _ = movie(model, np.repeat(model.coords[None], 3, axis=0), np.zeros(3))
    eye = figure.layout.scene.camera.eye
    assert np.isfinite([eye.x, eye.y, eye.z]).all()
