import copy

import numpy as np
import pytest
import torch
from eventful_vit import PerGate, Policy, SharedBudget, Threshold, TopFraction, TopR
from eventful_vit.policies import limits_of

from .small_models import make_vit

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
        (Threshold(0.15, at_most=0.5), [[1, 2], [0, 3]]),
        (Threshold(2.5, at_most=0.5), [[1], [0, 3]]),
        (Threshold(0.0, at_most=0.2), [[], []]),  # floor(0.2 * 4) = 0
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
        (lambda: Threshold(1.0, at_most=1.1), ValueError),
        (lambda: Threshold(1.0, at_most=float("nan")), ValueError),
        (lambda: Threshold("1"), TypeError),
        (lambda: Threshold(torch.tensor(float("nan"))), ValueError),
        (lambda: Threshold(1.0, at_most=float("inf")), ValueError),
        (lambda: TopFraction(float("inf")), ValueError),
        (lambda: TopFraction("0.5"), TypeError),
        (lambda: TopFraction(1.1), ValueError),
        (lambda: TopFraction(-0.1), ValueError),
        (lambda: TopFraction(float("nan")), ValueError),
    ],
)
def test_bad_values(make, error):
    with pytest.raises(error):
        make()


def test_names():
    assert [str(p) for p in (TopR(256), Threshold(0.5), Threshold(0.5, 0.1), TopFraction(0.25))] == [
        "top-r 256",
        "threshold 0.5",
        "threshold 0.5, at most 0.1 of the tokens",
        "fraction 0.25",
    ]


def test_nan_counts_as_the_largest_error():
    norms = torch.tensor([[1.0, torch.nan, 3.0, 2.0]])
    assert TopR(2).choose(norms).tolist() == [[False, True, True, False]]
    assert Threshold(2.5).choose(norms).tolist() == [[False, True, True, False]]


def test_equal_policies_have_one_hash():
    gates = {"blocks.0.*": TopR(1), "*": Threshold(0.5)}
    shared = (1.0, 16, {"blocks.0.qkv": 1.0}, {"blocks.0.qkv": 0.5})
    makers = (
        lambda: TopR(3), lambda: TopFraction(0.5), lambda: Threshold(0.5), lambda: PerGate(dict(gates)),
        lambda: PerGate(dict(gates), "title"), lambda: PerGate(dict(reversed(gates.items()))),
        lambda: SharedBudget(*copy.deepcopy(shared)), lambda: SharedBudget(2.0, *copy.deepcopy(shared[1:])),
    )  # fmt: skip
    names = {make(): number for number, make in enumerate(makers)}
    assert len(names) == len(makers)
    assert [names[make()] for make in makers] == list(range(len(makers)))


class TestPerGate:
    policy = PerGate({"blocks.0.*": TopR(1), "*.mlp": Threshold(0.5), "*": TopR(3)})

    @pytest.mark.parametrize(
        ("gate", "expected"),
        [("blocks.0.mlp", TopR(1)), ("blocks.1.mlp", Threshold(0.5)), ("blocks.10.qkv", TopR(3))],
    )
    def test_the_first_name_that_matches_counts(self, gate, expected):
        assert self.policy.for_gate(gate, tokens=8) == expected

    def test_a_gate_without_a_policy(self):
        policy = PerGate({"blocks.*": TopR(1)})
        with pytest.raises(KeyError, match="no policy for gate 'pyramid'"):
            policy.for_gate("pyramid", 8)
        with pytest.raises(ValueError, match="no policy for gate 'pyramid'; add one under '\\*'"):
            policy.check(["blocks.0.qkv", "pyramid"])

    def test_a_name_without_a_gate(self):
        vit = make_vit()
        message = "'blocks.0.mpl' names no gate; this model has blocks.0.qkv to blocks.2.mlp"
        with pytest.raises(ValueError, match=message):
            vit.set_policy(PerGate({"blocks.0.mpl": TopR(1), "*": TopR(3)}))
        assert vit.policy != self.policy

    @pytest.mark.parametrize("value", [5, PerGate({"*": TopR(1)})])
    def test_values_must_be_policies(self, value):
        with pytest.raises(TypeError, match="for 'blocks.0.qkv'"):
            PerGate({"blocks.0.qkv": value})

    def test_policies_that_decide_for_gates_or_learn_are_refused(self):
        shared = SharedBudget(1.0, 16, {"blocks.0.qkv": 1.0}, {"blocks.0.qkv": 0.5})
        with pytest.raises(TypeError, match="the same for all gates and frames.* for '\\*'; a SharedBudget decides"):
            PerGate({"*": shared})

    def test_its_name(self):
        assert str(self.policy) == "per gate blocks.0.*: top-r 1, *.mlp: threshold 0.5, *: top-r 3"


def test_one_policy_is_that_of_all_gates():
    assert TopR(5).for_gate("blocks.3.mlp", tokens=64) == TopR(5)


def test_a_policy_needs_a_rule():
    with pytest.raises(NotImplementedError, match="Policy needs choose"):
        Policy().choose(NORMS)


class OwnPolicy(Policy):
    """A user's."""

    def __init__(self, count: object, threshold: object = float("-inf")) -> None:
        self.count, self.threshold = count, threshold

    def limits(self, tokens: int) -> tuple:
        return self.count, self.threshold


@pytest.mark.parametrize("count", [-1, 2.5, None, "3"])
def test_numbers_of_a_users_policy_are_checked_before_kernels_get_them(count):
    model = make_vit()
    frame = torch.randn(1, 3, 40, 56)
    model(frame)
    model.policy = OwnPolicy(count)
    with pytest.raises(ValueError, match=r"OwnPolicy.limits\(\) must give a whole number of tokens, 0 or more"):
        model(frame)
    with pytest.raises(ValueError, match="must give a whole number of tokens"):
        model.policy.choose(torch.ones(1, 16))
    model.policy = OwnPolicy(np.int64(3))
    for _ in range(2):  # the first one computes all that the refused frame left undone
        model(frame)
    assert model.state.trace.gates["blocks.1.mlp"].selection.counts == (3,)


@pytest.mark.parametrize(
    "policy",
    [OwnPolicy(3, None), OwnPolicy(3, "1"), OwnPolicy(3, float("nan")), TopR(3)],
    ids=["None", "a word", "NaN", "not even two"],
)
def test_what_is_no_pair_of_numbers(policy, monkeypatch):
    if type(policy) is TopR:
        monkeypatch.setattr(TopR, "limits", lambda policy, tokens: policy.r)
    with pytest.raises(ValueError, match=r"limits\(\) must give a whole number of tokens, 0 or more, and a threshold"):
        limits_of(policy, 35)


def test_a_users_number_may_be_larger_than_any_that_kernels_take():
    model, frame = make_vit(policy=OwnPolicy(10**30)), torch.randn(1, 3, 40, 56)
    for _ in range(2):
        model(frame)
    assert model.state.trace.gates["blocks.1.mlp"].selection.counts == (35,)


class OwnChoice(Policy):
    """A user's, by any function of the norms."""

    def __init__(self, choose) -> None:
        self.choose = choose


@pytest.mark.parametrize(
    ("choose", "found"),
    [
        (lambda norms: norms.topk(3, dim=1).indices, r"torch.int64 \(1, 3\)"),
        (lambda norms: (norms > 0).to(torch.uint8), r"torch.uint8 \(1, 35\)"),
        (lambda norms: (norms > 0)[0], r"torch.bool \(35,\)"),
        (lambda norms: torch.ones(1, 36, dtype=torch.bool), r"torch.bool \(1, 36\)"),
        (lambda norms: None, "None"),
    ],
)
def test_masks_of_a_users_policy_are_checked_before_kernels_get_them(choose, found):
    model, frame = make_vit(policy=OwnChoice(choose)), torch.randn(1, 3, 40, 56)
    model(frame)
    with pytest.raises(ValueError, match=rf"OwnChoice.choose\(\) must give a boolean mask.*\(1, 35\); found {found}"):
        model(frame)
    model.set_policy(TopR(3))
    model(frame)
    assert model.state.trace.flushed == (True,)


class WithFirstToken(TopR):
    """A subclass that chooses by itself."""

    def choose(self, norms):
        mask = super().choose(norms)
        mask[:, 0] = True
        return mask


class Half(WithFirstToken):
    """A subclass of that one that is numbers again."""

    def limits(self, tokens):
        return self.r // 2, float("-inf")


def test_a_subclass_that_replaces_the_choice_is_asked():
    model, frames = make_vit(policy=WithFirstToken(2)), torch.randn(4, 1, 3, 40, 56)
    for frame in frames:
        model(frame)
        for gate in model.state.trace.gates.values():
            assert bool(gate.selection.mask()[0, 0])
    assert limits_of(WithFirstToken(2), 35) is None
    assert limits_of(Half(2), 35) == (1, float("-inf"))
