"""Which entries are drawn."""

import math
import time

import pytest
import torch

from fourierft import alpha_of_norm, atom_norm, band_pass, delta_weight, sample_entries
from fourierft.spectrum import _CELLS_AT_ONCE


def flat(entries, shape):
    return entries[0] * shape[1] + entries[1]


def radii(shape):
    """Distance of every index to the zero frequency, computed apart from the package."""
    u = torch.fft.fftfreq(shape[0], dtype=torch.float64) * shape[0]
    v = torch.fft.fftfreq(shape[1], dtype=torch.float64) * shape[1]
    return torch.hypot(u[:, None], v[None, :])


def test_entries_are_those_of_the_papers_seed():
    entries = sample_entries((768, 768), 1000)
    assert flat(entries, (768, 768))[:5].tolist() == [466568, 254852, 455206, 248204, 53127]


@pytest.mark.parametrize("shape", [(768, 768), (31, 48), (48, 31), (1, 7)])
@pytest.mark.parametrize("seed", [2024, 777, 0])
def test_entries_are_pefts_permutation(shape, seed):
    n = shape[0] * shape[1] // 3
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(shape[0] * shape[1], generator=generator)[:n]
    expected = torch.stack([index // shape[1], index % shape[1]])
    entries = sample_entries(shape, n, seed)
    assert entries.dtype == torch.int64
    assert torch.equal(entries, expected)


@pytest.mark.parametrize("center", [None, 0.0, 10.0])
def test_every_entry_is_drawn_once_when_all_are(center):
    shape = (12, 33)
    entries = sample_entries(shape, 12 * 33, 5, center, 4.0)
    assert sorted(flat(entries, shape).tolist()) == list(range(12 * 33))


@pytest.mark.parametrize("center", [None, 0.0, 100.0])
def test_fewer_entries_are_a_prefix_of_more(center):
    many = sample_entries((64, 96), 500, 1, center)
    assert torch.equal(sample_entries((64, 96), 200, 1, center), many[:, :200])


@pytest.mark.parametrize("center", [None, 100.0])
def test_draw_is_shared_and_leaves_the_global_random_state_alone(center):
    state = torch.get_rng_state()
    first = sample_entries((40, 50), 30, 11, center)
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_entries(torch.Size([40, 50]), 30, 11, center) is first
    assert not torch.equal(sample_entries((40, 50), 30, 12, center), first)


@pytest.mark.parametrize("shape", [(64, 96), (31, 48), (5, 12)])
def test_entries_of_few_rows_are_any_of_their_cells(shape):
    u, v = entries = sample_entries(shape, 3 * shape[1], 5, rows=3)
    assert len(set(u.tolist())) == 3 and u.max() <= shape[0] // 2
    assert len(set(flat(entries, shape).tolist())) == 3 * shape[1] and v.max() < shape[1]
    assert torch.equal(sample_entries(shape, 9, 5, rows=3), entries[:, :9])
    assert not torch.equal(sample_entries(shape, 9, 6, rows=3), entries[:, :9])


def test_bandwidth_without_center_changes_nothing():
    assert sample_entries((9, 9), 9, 0, None, 1.0) is sample_entries((9, 9), 9, 0, None, 2.0)


def test_entries_first_drawn_in_inference_mode_can_train():
    with torch.inference_mode():
        entries = sample_entries((10, 14), 6, seed=987654)
    coefficients = torch.ones(6, requires_grad=True)
    delta_weight(coefficients, entries, (10, 14), 1.0).sum().backward()
    assert coefficients.grad is not None


def test_meta_device_draws_nothing():
    start = time.perf_counter()
    entries = sample_entries((200_000, 200_000), 1000, device="meta")
    assert time.perf_counter() - start < 0.5  # the permutation alone would need 320 GB
    assert entries.shape == (2, 1000) and entries.device.type == "meta"


# Figure 3: sums and mean radii of Eq. 5 on 768 x 768, W = 200, computed apart from this code. They
# leave out the centre, which has p = 1 for f_c = 0 by its limit.
FIGURE_3 = {
    0: (124003.926 + 1, 173.618),
    100: (168894.313, 190.643),
    200: (249746.955, 249.53),
    350: (293857.523, 351.371),
    480: (105874.193, 429.4),
}


@pytest.mark.parametrize("center", FIGURE_3)
def test_map_has_the_sums_of_figure_3(center):
    total, mean_radius = FIGURE_3[center]
    p, distance = band_pass((768, 768), center), radii((768, 768))
    assert p.sum().item() == pytest.approx(total, abs=2e-3)
    assert ((p * distance).sum() / p.sum()).item() == pytest.approx(mean_radius, abs=3e-3)


@pytest.mark.parametrize("shape", [(768, 768), (300, 500), (33, 65)])
def test_map_is_finite_and_symmetric(shape):
    for center in (0, 50, 1e4):
        p = band_pass(shape, center, 20.0)
        assert p.shape == shape and torch.isfinite(p).all()
        assert p.min() >= 0 and p.max() <= 1
        # (u, v) and its conjugate (-u, -v) make the same cosine
        assert torch.equal(p, p.flip(0, 1).roll((1, 1), (0, 1)))


def test_map_without_center_frequency_peaks_at_zero_frequency():
    p = band_pass((300, 501), 0)
    assert p[0, 0] == 1 and (p == 1).sum() == 1
    assert p[150, 250] == p.min()


def test_map_peaks_on_the_ring_and_vanishes_at_its_centre():
    p, distance = band_pass((768, 500), 200), radii((768, 500))
    assert p[0, 0] == 0
    assert p[200, 0] == 1 and p[0, 200] == 1 and p[120, 160] == 1
    assert (p[(distance - 200).abs() < 1] > 0.999).all()
    assert p[384, 250] < 0.5


@pytest.mark.parametrize("shape", [(768, 768), (256, 1024), (301, 515)])
@pytest.mark.parametrize("center", [0.0, 60.0, 120.0])
def test_drawn_radii_follow_the_map(shape, center):
    n, width = 3000, 20.0
    p, distance = band_pass(shape, center, width), radii(shape)
    mean = ((p * distance).sum() / p.sum()).item()
    spread = (((p * (distance - mean) ** 2).sum() / p.sum()) ** 0.5).item()
    entries = sample_entries(shape, n, 3, center, width)
    drawn = distance[entries[0], entries[1]]
    # Without replacement the likely cells run out, which for f_c = 0 (1257 cells worth of
    # probability) moves the draw outwards; the ring holds many times n.
    if center:
        assert drawn.mean().item() == pytest.approx(mean, abs=6 * spread / math.sqrt(n))
        assert drawn.std().item() == pytest.approx(spread, rel=0.1)
    else:
        assert distance.flatten().sort().values[:n].mean() <= drawn.mean() < 3 * width
    uniform = sample_entries(shape, n, 3)
    assert drawn.std() < 0.5 * distance[uniform[0], uniform[1]].std()


def test_drawn_frequencies_match_probabilities_cell_by_cell():
    """First entry of many seeds against the exact probabilities (chi-square)."""
    shape, center, width, draws = (4, 6), 2.0, 3.0, 4000
    p = band_pass(shape, center, width).flatten()
    expected = draws * p / p.sum()
    seen = torch.zeros(24, dtype=torch.float64)
    for seed in range(draws):
        seen[flat(sample_entries(shape, 1, seed, center, width), shape)] += 1
    possible = expected > 0
    assert seen[~possible].sum() == 0
    chi_square = ((seen - expected)[possible] ** 2 / expected[possible]).sum().item()
    degrees = possible.sum().item() - 1
    assert chi_square < degrees + 5 * math.sqrt(2 * degrees)


def test_no_center_frequency_favours_low_frequencies_and_takes_the_zero_one():
    entries = sample_entries((768, 768), 1000, 2024, 0.0, 5.0)
    assert [0, 0] in entries.T.tolist()
    assert radii((768, 768))[entries[0], entries[1]].median() < 25


def test_draw_does_not_depend_on_how_it_is_cut(monkeypatch):
    whole = sample_entries((64, 100), 70, 4, 20.0)
    monkeypatch.setattr("fourierft.spectrum._CELLS_AT_ONCE", 3 * 100)
    from fourierft import spectrum

    parts = spectrum._biased_permutation(
        (64, 100), 70, (20.0, 200.0), torch.Generator().manual_seed(4)
    )
    assert torch.equal(parts, flat(whole, (64, 100)))


@pytest.mark.slow
def test_biased_draw_beyond_the_limit_of_multinomial():
    shape = (5120, 5120)
    assert shape[0] * shape[1] > 2**24 and shape[0] * shape[1] > _CELLS_AT_ONCE
    entries = sample_entries(shape, 1000, 2024, 1500.0, 200.0)
    assert len(set(flat(entries, shape).tolist())) == 1000
    assert entries.min() >= 0 and entries.max() < 5120
    u, v = (torch.where(e < 2560, e, e - 5120).double() for e in entries)
    distance = torch.hypot(u, v)
    assert distance.mean().item() == pytest.approx(1500, rel=0.03) and distance.std() < 120
    for coordinate in (u, v):  # every part of the ring is reached, not only the first rows
        assert (coordinate > 0).sum().item() == pytest.approx(500, abs=80)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n": 0}, "n: got 0, allowed 1 to 6 \\* 7 = 42"),
        ({"n": 43}, "n: got 43"),
        ({"shape": (6, 0)}, "shape: got \\(6, 0\\)"),
        ({"shape": (6,)}, "shape"),
        ({"center": -1.0}, "center: got -1.0, allowed 0 or above"),
        ({"center": math.nan}, "center: got nan"),
        ({"center": 3.0, "bandwidth": 0.0}, "bandwidth: got 0.0, allowed above 0"),
        ({"center": 3.0, "bandwidth": -5.0}, "bandwidth"),
        ({"rows": 0}, "rows: got 0, allowed 1 to 4"),
        ({"rows": 5}, "rows: got 5, allowed 1 to 4"),
        ({"rows": 2, "n": 15}, "n: got 15, allowed 1 to 2 \\* 7 = 14"),
        ({"rows": 2, "center": 3.0}, "rows: got 2 and center 3.0, allowed one of them"),
    ],
)
def test_errors_name_value_and_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        sample_entries(**{"shape": (6, 7), "n": 5, **arguments})


@pytest.mark.parametrize("shape", [(768, 768), (33, 65), (20, 48)])
def test_atom_norm_is_the_norm_of_one_coefficient(shape):
    entries = torch.tensor([[3], [5]])
    norm = delta_weight(torch.ones(1, dtype=torch.float64), entries, shape, 7.0).norm().item()
    assert norm == pytest.approx(atom_norm(shape, 7.0), rel=1e-12)
    assert alpha_of_norm(shape, norm) == pytest.approx(7.0, rel=1e-12)
    constant = delta_weight(
        torch.ones(1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.int64), shape, 7.0
    )
    assert constant.norm().item() == pytest.approx(math.sqrt(2) * atom_norm(shape, 7.0), rel=1e-12)


def test_rank_of_an_update_of_1000_coefficients():
    """688 of 768, as README says: entries that share their rows and columns add no rank."""
    shape = (768, 768)
    c = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    update = delta_weight(c, sample_entries(shape, 1000, seed=2024), shape, 150.0)
    assert torch.linalg.matrix_rank(update) == 688
