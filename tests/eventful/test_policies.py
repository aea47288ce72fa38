import pytest
import torch
from eventful_vitdet import Threshold, TopFraction, TopR

NORMS = torch.tensor([[0.1, 3.0, 2.0, 0.0], [5.0, 0.2, 0.3, 4.0]])


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (TopR(0), [[], []]),
        (TopR(2), [[1, 2], [0, 3]]),
        (TopR(4), [[0, 1, 2, 3]] * 2),
        (TopR(99), [[0, 1, 2, 3]] * 2),
        (TopFraction(0.0), [[], []]),
        (TopFraction(0.74), [[1, 2], [0, 3]]),  # floor(0.74 * 4) = 2
        (TopFraction(1.0), [[0, 1, 2, 3]] * 2),
        (Threshold(0.25), [[1, 2], [0, 2, 3]]),
        (Threshold(3.0), [[], [0, 3]]),  # strictly greater
        (Threshold(float("inf")), [[], []]),
    ],
)
def test_choice(policy, expected):
    assert [row.nonzero().flatten().tolist() for row in policy.choose(NORMS)] == expected


def test_ties_still_select_exactly_r():
    assert TopR(3).choose(torch.zeros(2, 8)).sum(dim=1).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: TopR(-1), ValueError),
        (lambda: TopR(2.5), TypeError),
        (lambda: TopR(True), TypeError),
        (lambda: Threshold(float("nan")), ValueError),
        (lambda: TopFraction(1.1), ValueError),
        (lambda: TopFraction(-0.1), ValueError),
        (lambda: TopFraction(float("nan")), ValueError),
    ],
)
def test_bad_values(make, error):
    with pytest.raises(error):
        make()


def test_names():
    assert [str(p) for p in (TopR(256), Threshold(0.5), TopFraction(0.25))] == [
        "top-r 256",
        "threshold 0.5",
        "fraction 0.25",
    ]
