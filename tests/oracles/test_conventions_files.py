"""Where an atom appears in the image, predicted from the files' own columns by scipy alone."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import fourier_shift
from scipy.spatial.transform import Rotation

from cryoscape.data.particles import Particles
from tests.data.builders import BOX, cs_table, particle_columns, write_cryosparc, write_star

POINT = np.array([11.0, -7.5, 5.25])
PIXEL = 1.25


def seen(particles):
    """Pixel position (x, y) of the point in the program's terms: A x + t from the centre pixel."""
    view = particles.rotations @ POINT
    return (view[:, :2] + particles.shifts) / particles.pixel_size + particles.box // 2


def predicted_from_star(columns):
    angles = np.array([columns[f"rlnAngle{a}"] for a in ("Rot", "Tilt", "Psi")], dtype=float).T
    origin = np.array([columns[f"rlnOrigin{a}Angst"] for a in "XY"], dtype=float).T
    # The Euler rotation turns the view's axes in the object, so the object's point turns back.
    view = Rotation.from_euler("ZYZ", angles, degrees=True).inv().apply(POINT)
    return (view[:, :2] - origin) / PIXEL + BOX // 2


def test_relion_point(tmp_path):
    particles = Particles.read(write_star(tmp_path / "p.star"))
    np.testing.assert_allclose(seen(particles), predicted_from_star(particle_columns()), atol=1e-4)


def test_cryosparc_point(tmp_path):
    main, _ = cs_table()
    particles = Particles.read(write_cryosparc(tmp_path))
    view = Rotation.from_rotvec(main["alignments3D/pose"]).inv().apply(POINT)
    shift = main["alignments3D/shift"].astype(float) * main["alignments3D/psize_A"][:, None]
    np.testing.assert_allclose(seen(particles), (view[:, :2] - shift) / PIXEL + BOX // 2, atol=1e-4)


def test_the_origin_brings_the_particle_to_the_centre():
    """Moving an image by +origin, with scipy's own shift, undoes the program's shift t = -origin."""
    from cryoscape.conventions import shift_from_relion

    origin = np.array([2.5, -3.75])
    t = shift_from_relion(*origin)[0]
    image = np.zeros((16, 16))
    image[8 + int(t[1] / PIXEL), 8 + int(t[0] / PIXEL)] = 1.0
    centred = np.fft.ifft2(fourier_shift(np.fft.fft2(image), (origin / PIXEL)[::-1])).real
    assert np.unravel_index(np.argmax(centred), centred.shape) == (8, 8)


def test_star_through_the_program_and_back(tmp_path):
    columns = particle_columns()
    write_star(tmp_path / "p.star", columns)
    Particles.read(tmp_path / "p.star").write(tmp_path / "p.cs")
    Particles.read(tmp_path / "p.cs").write(tmp_path / "q.star")
    again = Particles.read(tmp_path / "q.star")
    np.testing.assert_allclose(seen(again), predicted_from_star(columns), atol=1e-4)
    np.testing.assert_allclose(again.defocus_u, np.array(columns["rlnDefocusU"], dtype=float), atol=1e-2)
    np.testing.assert_allclose(
        np.cos(np.deg2rad(again.defocus_angle - np.array(columns["rlnDefocusAngle"], dtype=float))), 1
    )


def test_cryosparc_through_relion_and_back(tmp_path):
    particles = Particles.read(write_cryosparc(tmp_path))
    particles.write(tmp_path / "p.star")
    Particles.read(tmp_path / "p.star").write(tmp_path / "p.cs")
    table = np.load(tmp_path / "p.cs", allow_pickle=False)
    main, extra = cs_table()
    difference = (
        Rotation.from_rotvec(table["alignments3D/pose"])
        * Rotation.from_rotvec(main["alignments3D/pose"]).inv()
    )
    assert difference.magnitude().max() < 2e-6
    np.testing.assert_allclose(
        table["alignments3D/shift"] * table["alignments3D/psize_A"][:, None],
        main["alignments3D/shift"] * main["alignments3D/psize_A"][:, None],
        atol=1e-4,
    )
    for name in ("uid", "blob/idx", "blob/sign", "blob/psize_A", "ctf/accel_kv", "ctf/amp_contrast"):
        np.testing.assert_array_equal(table[name], extra[name], err_msg=name)
    for name in ("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/phase_shift_rad", "ctf/tilt_A"):
        np.testing.assert_allclose(table[name], extra[name], rtol=2e-6, err_msg=name)
    np.testing.assert_array_equal(table["alignments3D/split"], main["alignments3D/split"])
