import numpy as np
import pytest

from watchnext.config import EvaluationConfig
from watchnext.evaluation.lists import System, score_lists

CONFIG = EvaluationConfig(cutoffs=(1, 3), bootstrap_draws=20)


def rows(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def always(*ranking: int) -> System:
    """Recommends the same to everybody, less what is excluded."""

    def system(context, k, excluded):
        lists = [[row for row in ranking if row not in struck][:k] for struck in excluded]
        return np.array([one + [0] * (k - len(one)) for one in lists], dtype=np.int64)

    return system


def values(scores) -> dict[str, float]:
    return {metric: estimate.value for metric, estimate in scores.items()}


def test_figures_are_those_worked_by_hand(make_users):
    nothing = [rows()] * 2
    scores = score_lists({"same": always(4, 5, 6)}, make_users(2), [rows(4), rows(6, 9)], nothing, CONFIG)
    # First user: all found at once. Second: one of two, in place 3: ndcg 0.5 / 1.6309, reciprocal 1/3.
    assert values(scores["same"]) == {
        "recall@1": pytest.approx((1 + 0) / 2),
        "recall@3": pytest.approx((1 + 0.5) / 2),
        "ndcg@1": pytest.approx((1 + 0) / 2),
        "ndcg@3": pytest.approx((1 + 0.30658) / 2, abs=1e-5),
        "mrr": pytest.approx((1 + 1 / 3) / 2),
    }


def test_excluded_videos_are_struck_from_lists_and_targets(make_users):
    scores = score_lists({"same": always(4, 5, 6)}, make_users(1), [rows(4, 5)], [rows(4)], CONFIG)
    # Video 5 alone is left to be found, and moves up to the first place.
    assert values(scores["same"])["recall@1"] == 1.0


def test_users_without_targets_left_are_not_counted(make_users):
    targets, excluded = [rows(4), rows(7), rows()], [rows(4), rows(), rows()]
    scores = score_lists({"same": always(7, 5, 6)}, make_users(3), targets, excluded, CONFIG)
    assert values(scores["same"]) == dict.fromkeys(("recall@1", "recall@3", "ndcg@1", "ndcg@3", "mrr"), 1.0)


def test_every_system_sees_the_same_users(make_users):
    asked = {"one": [], "other": []}

    def spy(name):
        def system(context, k, excluded):
            asked[name].append((context.user_row.tolist(), k, [struck.tolist() for struck in excluded]))
            return np.zeros((len(context), k), dtype=np.int64)

        return system

    score_lists({name: spy(name) for name in asked}, make_users(2), [rows(1), rows(2)], [rows(8), rows()], CONFIG)
    assert asked["one"] == asked["other"] == [([0, 1], 3, [[8], []])]


def test_users_of_later_batches_keep_their_targets_and_exclusions(make_users):
    # User i wants video i + 1 and is recommended it; what is excluded differs from user to user too.
    num_users = 1_300
    targets = [rows(user + 1, user + 5_000) for user in range(num_users)]
    excluded = [rows(user + 5_000) for user in range(num_users)]

    def knows(context, k, struck):
        assert [one.tolist() for one in struck] == [[user + 5_000] for user in context.user_row]
        return np.pad(context.user_row[:, None] + 1, ((0, 0), (0, k - 1)))

    scores = score_lists({"knows": knows}, make_users(num_users), targets, excluded, CONFIG)
    assert values(scores["knows"])["recall@1"] == 1.0


def test_intervals_enclose_the_value(make_users):
    targets = [rows(4), rows(9)] * 20
    recall = score_lists({"same": always(4)}, make_users(40), targets, [rows()] * 40, CONFIG)["same"]["recall@1"]
    assert recall.low < recall.value == 0.5 < recall.high
