"""Tests of significance against known values, brute force and simulated models whose difference is known."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from ran_model.significance import half_width, mcnemar, mean_difference, paired_bootstrap


def _pair(both: int, only_a: int, only_b: int, neither: int) -> tuple[Tensor, Tensor]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return torch.tensor(a, dtype=torch.bool), torch.tensor(b, dtype=torch.bool)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (5, 15, 0.04138947),
        (1, 10, 0.01171875),
        (0, 6, 0.03125),
        (1, 0, 1.0),
        (10, 10, 1.0),
        (0, 0, 1.0),
    ],
)
def test_known_p_values(only_a: int, only_b: int, p_value: float) -> None:
    answer = mcnemar(*_pair(30, only_a, only_b, 7))
    assert (answer.n, answer.only_a, answer.only_b) == (37 + only_a + only_b, only_a, only_b)
    assert answer.p_value == pytest.approx(p_value, abs=1e-8)


def test_p_is_the_share_of_coin_throws_at_least_as_one_sided() -> None:
    for only_a, only_b in product(range(7), range(7)):
        throws = only_a + only_b
        as_extreme = [abs(2 * sum(coins) - throws) >= abs(only_a - only_b) for coins in product((0, 1), repeat=throws)]
        expected = sum(as_extreme) / 2**throws
        assert mcnemar(*_pair(3, only_a, only_b, 2)).p_value == pytest.approx(expected)


def test_thousands_of_pairs_neither_overflow_nor_vanish() -> None:
    only_a, only_b = 9_800, 10_200
    logs = [
        math.lgamma(20_001) - math.lgamma(k + 1) - math.lgamma(20_001 - k) - 20_000 * math.log(2)
        for k in range(only_a + 1)
    ]
    expected = 2 * math.fsum(map(math.exp, logs))
    assert mcnemar(*_pair(5, only_a, only_b, 0)).p_value == pytest.approx(expected, rel=1e-6)
    assert mcnemar(*_pair(0, 0, 1_000, 0)).p_value == pytest.approx(2.0**-999)
    assert mcnemar(*_pair(0, 0, 5_000, 0)).p_value == 0.0


def test_swapping_the_models_swaps_the_answer() -> None:
    a, b = _pair(50, 20, 9, 30)
    forth, back = mcnemar(a, b), mcnemar(b, a)
    assert forth.p_value == back.p_value
    assert (forth.only_a, forth.only_b) == (back.only_b, back.only_a) == (20, 9)
    one, other = paired_bootstrap(a, b), paired_bootstrap(b, a, seed=1)
    assert one.difference == -other.difference == pytest.approx(11 / 109)
    assert [one.low, one.high] == pytest.approx([-end for end in (other.high, other.low) if end], abs=0.01)


def test_equal_models_do_not_differ() -> None:
    a, _ = _pair(40, 30, 0, 10)
    assert mcnemar(a, a).p_value == 1.0
    answer = paired_bootstrap(a, a)
    assert (answer.difference, answer.low, answer.high) == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_faces_drawn_one_by_one() -> None:
    a, b = _pair(60, 25, 10, 25)
    answer = paired_bootstrap(a, b, samples=20_000, confidence=0.9)
    generator = torch.Generator().manual_seed(5)
    faces = torch.randint(120, (20_000, 120), generator=generator)
    differences = a[faces].double().mean(dim=1) - b[faces].double().mean(dim=1)
    low, high = np.quantile(differences.numpy(), (0.05, 0.95))
    assert answer.low == pytest.approx(low, abs=0.005)
    assert answer.high == pytest.approx(high, abs=0.005)
    assert answer.high - answer.low > 0.1


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, covered = 0.84 - 0.80, 0
    for trial in range(200):
        luck_B = torch.rand(800, generator=generator)  # shared: what is hard for one is hard for the other
        own_B = torch.rand(800, generator=generator)
        a, b = luck_B < 0.84, torch.where(own_B < 0.5, luck_B < 0.80, torch.rand(800, generator=generator) < 0.80)
        answer = paired_bootstrap(a, b, samples=1_000, seed=trial)
        covered += answer.low <= truth <= answer.high
    assert 180 <= covered <= 198


def test_pairing_makes_the_interval_narrower() -> None:
    a, b = _pair(700, 60, 20, 220)
    shuffled = b[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    paired, unpaired = paired_bootstrap(a, b), paired_bootstrap(a, shuffled)
    assert paired.difference == pytest.approx(unpaired.difference)
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


def test_several_seeds_average_and_share_the_resampled_faces() -> None:
    generator = torch.Generator().manual_seed(3)
    pairs = [
        (torch.rand(300, generator=generator) < 0.85, torch.rand(300, generator=generator) < 0.8) for _ in range(3)
    ]
    answer = mean_difference(pairs, samples=20_000)
    assert answer.by_seed == pytest.approx([float(a.double().mean() - b.double().mean()) for a, b in pairs])
    assert answer.difference == pytest.approx(sum(answer.by_seed) / 3)
    faces = torch.randint(300, (20_000, 300), generator=generator)
    drawn = torch.stack([a[faces].double().mean(dim=1) - b[faces].double().mean(dim=1) for a, b in pairs]).mean(dim=0)
    low, high = np.quantile(drawn.numpy(), (0.025, 0.975))
    assert (answer.low, answer.high) == (pytest.approx(low, abs=0.003), pytest.approx(high, abs=0.003))


def test_the_same_models_again_are_no_new_evidence() -> None:
    pair = _pair(60, 25, 10, 25)
    once, thrice = mean_difference([pair]), mean_difference([pair] * 3)
    assert once == paired_bootstrap(*pair)
    assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_faces_of_one_video_are_resampled_together() -> None:
    """Groups of ten equal faces say no more than one face each; groups of one face are faces."""
    a, b = _pair(30, 12, 6, 12)
    groups = torch.arange(60)
    once = paired_bootstrap(a, b, groups)
    ten = paired_bootstrap(a.repeat(10), b.repeat(10), groups.repeat(10))
    assert (ten.n, ten.groups, once.groups) == (600, 60, 60)
    assert (ten.difference, ten.low, ten.high) == pytest.approx((once.difference, once.low, once.high))
    faces = paired_bootstrap(a, b)
    assert faces.groups is None
    assert (once.low, once.high) == (pytest.approx(faces.low, abs=0.02), pytest.approx(faces.high, abs=0.02))
    naive = paired_bootstrap(a.repeat(10), b.repeat(10))
    assert ten.low is not None
    assert ten.high is not None
    assert naive.low is not None
    assert naive.high is not None
    assert ten.high - ten.low > 2.5 * (naive.high - naive.low)


def test_seeds_of_grouped_faces_average_before_groups_are_drawn() -> None:
    pairs = [_pair(30, 12, 6, 12), _pair(30, 2, 6, 22)]
    groups = torch.arange(60) % 20
    answer = mean_difference(pairs, groups, samples=20_000)
    gains_G = torch.stack([a.double() - b.double() for a, b in pairs]).mean(dim=0).reshape(3, 20).sum(dim=0)
    drawn = torch.randint(20, (20_000, 20), generator=torch.Generator().manual_seed(1))
    low, high = np.quantile((gains_G[drawn].sum(dim=1) / 60).numpy(), (0.025, 0.975))
    assert (answer.low, answer.high) == (pytest.approx(low, abs=0.009), pytest.approx(high, abs=0.009))
    assert answer.by_seed == pytest.approx([6 / 60, -4 / 60])


def test_one_group_has_no_interval_and_json_says_so() -> None:
    answer = paired_bootstrap(*_pair(3, 2, 1, 0), torch.zeros(6, dtype=torch.int64)).to_json()
    assert (answer["low"], answer["high"], answer["groups"]) == (None, None, 1)
    json.dumps(answer, allow_nan=False)
    with pytest.raises(ValueError, match="groups of 5 faces, answers for 6"):
        paired_bootstrap(*_pair(3, 2, 1, 0), torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 2.0], 12.7062 * 2**0.5 / 2**0.5),
        ([1.0, 2.0, 3.0], 4.30265 / 3**0.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2.77645 * 2.5**0.5 / 5**0.5),
        ([0.0, 1.0] * 500, 1.96234 * 0.500250 / 1000**0.5),
        ([4.0, 4.0], 0.0),
    ],
)
def test_the_interval_over_seeds_is_students(values: list[float], expected: float) -> None:
    assert half_width(values) == pytest.approx(expected, rel=1e-4)
    assert half_width(values, 0.9) == 0 or (half_width(values, 0.9) or 0) < expected


def test_one_seed_has_no_interval_over_seeds() -> None:
    pair = _pair(60, 25, 10, 25)
    assert half_width([3.0]) is None
    assert paired_bootstrap(*pair).seeds_half_width is None
    other = _pair(60, 20, 15, 25)
    answer = mean_difference([pair, other], confidence=0.9)
    assert answer.seeds_half_width == pytest.approx(6.31375 * (10 / 120) / 2, rel=1e-4)


def test_a_seed_fixes_the_interval() -> None:
    pair = _pair(60, 25, 10, 25)
    assert paired_bootstrap(*pair, samples=500, seed=4) == paired_bootstrap(*pair, samples=500, seed=4)
    intervals = {paired_bootstrap(*pair, samples=500, seed=seed).low for seed in range(8)}
    assert len(intervals) > 1


def test_json_holds_plain_types() -> None:
    pair = _pair(60, 25, 10, 25)
    for answer in (mcnemar(*pair).to_json(), mean_difference([pair, pair]).to_json()):
        assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = _pair(3, 2, 1, 0)
    with pytest.raises(ValueError, match=r"answers for \[5, 6\] faces"):
        mcnemar(a, b[:5])
    with pytest.raises(ValueError, match="at least one"):
        mcnemar(a[:0], b[:0])
    with pytest.raises(ValueError, match="at least one"):
        mean_difference([])
    with pytest.raises(ValueError, match=r"answers for \[4, 6\] faces"):
        mean_difference([(a, b), (a[:4], b[:4])])
    with pytest.raises(ValueError, match="bool"):
        mcnemar(a.long(), b)
    with pytest.raises(ValueError, match="confidence is 95"):
        paired_bootstrap(a, b, confidence=95)
