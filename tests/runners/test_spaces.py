"""The learnt space beside the true one: what the number and the components are, and that the page of a report shows the pictures."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces as kinds

from runners import spaces
from runners.report.build import archive_section
from runners.report.read import Run

BOX = kinds.Box(-1.0, 1.0, (2,), np.float32)
PLACES = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)


def test_the_correlation_of_distances():
    """1 for a space that is turned and stretched, about 0 for one that knows nothing, 1 less 6 sum d^2 / (n (n^2 - 1)) in between, none without differences."""
    turned = 3.0 * PLACES @ np.array([[0.6, -0.8], [0.8, 0.6]])
    assert spaces.rank_correlation(PLACES, np.pad(turned, ((0, 0), (0, 4)))) == pytest.approx(1.0, abs=1e-4)
    assert abs(spaces.rank_correlation(PLACES, np.random.default_rng(1).normal(size=(200, 10)))) < 0.1
    line, other = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [5.0], [1.0]])  # distances 1, 3, 2 and 5, 1, 4: ranks 1, 3, 2 and 3, 1, 2
    assert spaces.rank_correlation(line, other) == pytest.approx(1 - 6 * 8 / (3 * 8))
    assert spaces.rank_correlation(PLACES, np.ones((200, 3))) is None


def test_the_two_directions_with_the_most_variance():
    codes = np.random.default_rng(2).normal(size=(500, 4)) * [1.0, 5.0, 0.1, 3.0]
    seen, share = spaces.along_principal_components(codes)
    np.testing.assert_allclose(np.abs(np.corrcoef(seen[:, 0], codes[:, 1])[0, 1]), 1, atol=0.02)
    np.testing.assert_allclose(np.abs(np.corrcoef(seen[:, 1], codes[:, 3])[0, 1]), 1, atol=0.02)
    assert share == pytest.approx(34 / 35.01, abs=0.02)
    assert spaces.along_principal_components(codes[:, :1])[0].shape == (500, 2)


def test_the_picture_and_its_place_in_a_report(tmp_path):
    run = Run(tmp_path, {}, [], [{"search/coverage": 0.5}], None, None, [])
    assert "scripts/farlands elites" in archive_section(run)
    out = tmp_path / "pictures" / "elites-0-spaces.png"
    assert spaces.picture(out, PLACES, PLACES, BOX, "a search") == pytest.approx(1.0)
    page = archive_section(run)
    assert f"What {tmp_path.name} keeps, member 0" in page and "data:image/png" in page and out.stat().st_size > 10_000
