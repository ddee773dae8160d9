"""The decoder apart: it is kept, it survives bad files, and its death is an error of one file."""

from threading import Thread

import numpy as np
import pytest
from pydicom.uid import JPEGLossless

from data_catalog.dicom import isolated_decoder
from data_catalog.dicom.isolated_decoder import decoded_apart


def plain_bytes(make_dicom, tmp_path, name="a.dcm", **attributes):
    return make_dicom(tmp_path / name, **attributes).read_bytes()


def test_pixels_come_back_and_the_process_is_kept(make_dicom, tmp_path):
    pixels = np.arange(80 * 90, dtype=np.uint16).reshape(80, 90) % 4096
    data = plain_bytes(make_dicom, tmp_path, pixels=pixels)

    first = decoded_apart(data)
    process = isolated_decoder._own.decoder.process
    second = decoded_apart(data)

    np.testing.assert_array_equal(first, pixels)
    np.testing.assert_array_equal(second, pixels)
    assert isolated_decoder._own.decoder.process is process


def test_a_bad_file_is_an_error_and_the_next_one_is_read(make_dicom, tmp_path):
    data = plain_bytes(make_dicom, tmp_path)

    with pytest.raises(RuntimeError, match="decoder says"):
        decoded_apart(b"no DICOM at all" * 20)

    assert decoded_apart(data).shape == (128, 128)


def test_the_death_of_the_process_is_an_error_and_the_next_file_gets_another(make_dicom, tmp_path, monkeypatch):
    data = plain_bytes(make_dicom, tmp_path)
    (tmp_path / "dies.py").write_text("import os, sys\nsys.stdin.buffer.read(8)\nos.abort()\n")
    with monkeypatch.context() as patched:
        patched.setattr(isolated_decoder, "_PROGRAM", tmp_path / "dies.py")
        patched.setattr(isolated_decoder, "_own", local := type(isolated_decoder._own)())

        with pytest.raises(RuntimeError, match="signal 6"):
            decoded_apart(data)

        assert local.decoder is None

    assert decoded_apart(data).shape == (128, 128)


def test_one_that_died_meanwhile_is_replaced(make_dicom, tmp_path):
    data = plain_bytes(make_dicom, tmp_path)
    decoded_apart(data)
    isolated_decoder._own.decoder.process.kill()
    isolated_decoder._own.decoder.process.wait()

    assert decoded_apart(data).shape == (128, 128)


def test_each_thread_has_its_own(make_dicom, tmp_path):
    data = plain_bytes(make_dicom, tmp_path)
    decoded_apart(data)
    mine, theirs = isolated_decoder._own.decoder.process.pid, []

    def work():
        decoded_apart(data)
        theirs.append(isolated_decoder._own.decoder.process.pid)
        isolated_decoder._own.decoder.stop()

    thread = Thread(target=work)
    thread.start()
    thread.join()

    assert len(theirs) == 1
    assert theirs[0] != mine


def test_lossless_jpeg_is_decoded_apart():
    from data_catalog.dicom.decode import ISOLATED

    assert JPEGLossless in ISOLATED
