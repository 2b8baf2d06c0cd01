from cryoscape.cli.main import main


def test_a_negative_number_of_images_is_refused(tmp_path, capsys):
    (tmp_path / "truth.npz").touch()
    code = main(["evaluate", str(tmp_path), "--truth", str(tmp_path / "truth.npz"), "--images", "-1"])
    assert code == 2
    assert "-1 images cannot be compared" in capsys.readouterr().err


def test_a_missing_mask_is_refused(tmp_path, capsys):
    (tmp_path / "truth.npz").touch()
    mask = tmp_path / "mask.mrc"
    assert main(["evaluate", str(tmp_path), "--truth", str(tmp_path), "--mask", str(mask)]) == 2
    assert "mask.mrc: no such file" in capsys.readouterr().err
