"""Single entries of a matrix product."""

import torch

from fourierft.bases.sampled_product import SampledProduct

ROWS, COLUMNS = torch.tensor([3, 0, 3, 2, 3, 0]), torch.tensor([1, 4, 1, 0, 4, 4])  # some twice


def test_entries_of_the_product(monkeypatch):
    sampling = SampledProduct(ROWS, COLUMNS, (5, 6))
    for dtype in (torch.float32, torch.float64):
        rows, columns = torch.randn(5, 9, dtype=dtype), torch.randn(6, 9, dtype=dtype)
        expected = (rows @ columns.T)[ROWS, COLUMNS]
        torch.testing.assert_close(sampling(rows, columns), expected)
        pattern = sampling._pattern(dtype)  # MKL copies other indices in every call
        assert {pattern.crow_indices().dtype, pattern.col_indices().dtype} == {torch.int32}
        with monkeypatch.context() as patch:  # a machine without MKL
            patch.setattr(torch.backends.mkl, "is_available", lambda: False)
            patch.setattr(torch.sparse, "sampled_addmm", None)
            torch.testing.assert_close(sampling(rows, columns), expected)


def test_more_entries_than_are_gathered_at_once(monkeypatch):
    rows, columns = torch.randn(40, 3), torch.randn(50, 3)
    cells = torch.randperm(2000)[:700]
    sampling = SampledProduct(cells // 50, cells % 50, (40, 50))
    expected = (rows @ columns.T).flatten()[cells]
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    torch.testing.assert_close(sampling(rows, columns), expected)
