"""The log-mel spectrogram against the published one's, and against what can be worked out."""

import math

import numpy as np
import torch

from ddl_d2.layers.log_mel import log_mel, mel_filters


def test_silence_is_the_log_of_the_floor():
    found = log_mel(torch.zeros(2, 640 * 3))
    assert found.shape == (2, 64, 12)
    torch.testing.assert_close(found, torch.full_like(found, math.log(0.01)))


def test_a_tone_is_loudest_in_its_band():
    # 1000 Hz is 1000 on the mel scale; the bands' centers lie 2840.02 / 65 = 43.69 mel apart: 1000 / 43.69 = 22.9,
    # the 23rd center, which is row 22.
    samples = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    assert log_mel(samples)[:, 50].argmax() == 22


def test_no_sound_at_all_is_one_column_of_silence():
    torch.testing.assert_close(log_mel(torch.zeros(0)), torch.full((64, 1), math.log(0.01)))


def test_the_published_spectrogram(batfd_reference):
    golden = np.load(batfd_reference.folder / "s5_targets_and_nms.npz")
    np.testing.assert_allclose(mel_filters().T, golden["log_mel/filter_bank"], atol=1e-5)
    found = log_mel(batfd_reference.reference_waveform(32))
    np.testing.assert_allclose(found, golden["log_mel/32_frames"], atol=3e-5)
