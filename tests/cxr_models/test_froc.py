"""FROC agrees with MONAI, with a plain sweep over thresholds, and with itself where images are drawn twice."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.metrics import compute_fp_tp_probs, compute_froc_curve_data, compute_froc_score
from sklearn.metrics import roc_auc_score

from cxr_models.detection import Candidate
from cxr_models.froc import RATES, auc, froc
from cxr_models.targets import ScoredImage, Target

SIDE, SLOTS = 40, ((10, 10), (10, 30), (30, 10), (30, 30))


@st.composite
def scored_images(draw, most=6):
    """Images with lesions that do not overlap, on whole pixels, and scores with many ties."""
    images = []
    for _ in range(draw(st.integers(1, most))):
        slots = draw(st.lists(st.sampled_from(SLOTS), max_size=4, unique=True))
        size = st.integers(1, 8).map(lambda radius: 2 * radius)
        facts = st.tuples(size, st.sampled_from([None, 4.0, 8.0, 25.0]), st.sampled_from([None, 1, 2.5, 5]))
        targets = []
        for slot in slots:
            side, mm, subtlety = draw(facts)
            targets.append(Target(*slot, side, side, mm, subtlety, ignore=draw(st.integers(0, 4)) == 0))
        near = st.sampled_from(SLOTS).flatmap(lambda s: st.tuples(*[st.integers(c - 3, c + 3) for c in s]))
        anywhere = st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))
        marks = draw(st.lists(st.tuples(near | anywhere, st.integers(1, 16)), max_size=8))
        found = tuple(Candidate(score / 16, row, column, 3) for (row, column), score in marks)
        patient = draw(st.sampled_from("abc"))
        images.append(ScoredImage(patient, tuple(targets), found, draw(st.integers(0, 6)) / 6))
    return images


def swept(images):
    """(sensitivity at each rate) by trying every threshold on every image, in plain Python."""
    counted = [(image, t) for image in images for t in image.targets if not t.ignore]
    if not counted:
        return [math.nan] * len(RATES)

    def lies_in(c, t):
        return ((c.row - t.row) / (t.height / 2)) ** 2 + ((c.column - t.column) / (t.width / 2)) ** 2 < 1

    points = [(0.0, 0.0)]
    for threshold in sorted({c.score for image in images for c in image.candidates}, reverse=True):
        alarms = found = 0
        for image in images:
            shown = [c for c in image.candidates if c.score >= threshold]
            alarms += sum(not any(lies_in(c, t) for t in image.targets) for c in shown)
            found += sum(any(lies_in(c, t) for c in shown) for t in image.targets if not t.ignore)
        points.append((alarms / len(images), found / len(counted)))
    result = []
    for rate in RATES:
        below = max(i for i, point in enumerate(points) if point[0] <= rate)
        (x, y), (next_x, next_y) = points[below], points[min(below + 1, len(points) - 1)]
        result.append(y if next_x == x else y + (next_y - y) * (rate - x) / (next_x - x))
    return result


def of_monai(images):
    """MONAI's score of the seven rates. A false alarm of score 0 stands for the threshold that it leaves out."""
    alarms, hits, lesions = [np.zeros(1)], [], 0
    rows, columns = np.ogrid[:SIDE, :SIDE]
    for image in images:
        mask = np.zeros((SIDE, SIDE), int)
        for label, t in enumerate(image.targets, 1):
            mask[np.hypot(rows - t.row, columns - t.column) < t.height / 2] = label
        marks = np.array([(c.score, c.row, c.column) for c in image.candidates]).reshape(-1, 3)
        out = [i for i, t in enumerate(image.targets, 1) if t.ignore]
        fp, tp, count = compute_fp_tp_probs(marks[:, 0], marks[:, 1], marks[:, 2], mask, out)
        alarms.append(fp)
        hits.append(tp)
        lesions += count
    curve = compute_froc_curve_data(np.concatenate(alarms), np.concatenate(hits).astype(float), lesions, len(images))
    return float(compute_froc_score(*curve, RATES))


@settings(max_examples=100, deadline=None)
@given(scored_images())
def test_the_score_agrees_with_monai(images):
    assume(any(not t.ignore for image in images for t in image.targets))
    assert froc(images, draws=1).score.value == pytest.approx(of_monai(images), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(scored_images())
def test_sensitivities_agree_with_a_sweep_over_thresholds(images):
    ours = [estimate.value for estimate in froc(images, draws=1).at_rate.values()]
    assert [math.nan if v is None else v for v in ours] == pytest.approx(swept(images), abs=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(scored_images())
def test_the_curve_is_the_one_the_sensitivities_are_read_from(images):
    result = froc(images, draws=1)
    assume(result.lesions)

    assert (result.false_positives[0], result.sensitivity[0], result.thresholds[0]) == (0, 0, math.inf)
    assert (np.diff(result.false_positives) >= 0).all()
    assert (np.diff(result.sensitivity) >= 0).all()
    assert (np.diff(result.thresholds) < 0).all()
    read = np.interp(RATES, result.false_positives, result.sensitivity)
    assert [e.value for e in result.at_rate.values()] == pytest.approx(read.tolist(), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(scored_images(most=8), st.integers(0, 99))
def test_intervals_are_those_of_images_drawn_again(images, seed):
    """The same samples of patients, but made by copying their images."""
    names = sorted({image.patient for image in images})
    rng = np.random.default_rng(seed)
    scores, areas = [], []
    for _ in range(12):
        drawn = [i for name in rng.integers(0, len(names), len(names)) for i in images if i.patient == names[name]]
        scores.append(np.mean(swept(drawn)))
        areas.append(froc(drawn, draws=0).auc.value)

    result = froc(images, draws=12, seed=seed)

    for estimate, values in ((result.score, scores), (result.auc, areas)):
        defined = [v for v in values if v is not None and not math.isnan(v)]
        if estimate.value is not None and defined:
            expected = np.percentile(defined, [2.5, 97.5]).tolist()
            assert [estimate.low, estimate.high] == pytest.approx(expected, abs=1e-9)
        else:
            assert estimate.low is estimate.high is None


@settings(max_examples=60, deadline=None)
@given(scored_images(), st.data())
def test_one_more_false_positive_never_raises_a_sensitivity(images, data):
    number = data.draw(st.integers(0, len(images) - 1))
    alarm = Candidate(data.draw(st.integers(0, 17)) / 17, -50, -50, 3)
    more = [*images]
    more[number] = replace(images[number], candidates=(*images[number].candidates, alarm))
    before, after = froc(images, draws=0), froc(more, draws=0)
    assume(before.lesions)

    for table in ("at_rate", "by_size", "by_subtlety"):
        pairs = zip(getattr(before, table).values(), getattr(after, table).values(), strict=True)
        assert all(b.value >= a.value - 1e-12 for b, a in pairs)


@settings(max_examples=40, deadline=None)
@given(scored_images(), st.randoms(use_true_random=False))
def test_order_does_not_matter(images, random):
    shuffled = [
        replace(
            i,
            candidates=random.sample(i.candidates, len(i.candidates)),
            targets=random.sample(i.targets, len(i.targets)),
        )
        for i in random.sample(images, len(images))
    ]
    assert flat(froc(images, draws=20).record()) == pytest.approx(flat(froc(shuffled, draws=20).record()), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(scored_images())
def test_only_the_order_of_scores_matters(images):
    moved = [
        replace(
            i,
            candidates=[replace(c, score=c.score**3 / 2 + 0.1) for c in i.candidates],
            probability=math.exp(i.probability),
        )
        for i in images
    ]
    before, after = froc(images, draws=20).record(), froc(moved, draws=20).record()
    del before["thresholds"], after["thresholds"]
    assert before == after


@settings(max_examples=40, deadline=None)
@given(scored_images())
def test_groups_add_up_to_the_whole(images):
    result = froc(images, draws=0)
    assume(result.lesions)
    for groups in (result.by_size, result.by_subtlety):
        assert sum(e.n for e in groups.values()) == result.lesions
        total = sum(e.value * e.n for e in groups.values()) / result.lesions
        assert total == pytest.approx(result.at_rate[1.0].value, abs=1e-12)


def flat(record):
    """Numbers of a record, None as -1."""
    if isinstance(record, dict):
        return [number for key in sorted(record) for number in flat(record[key])]
    return [-1.0 if record is None else record]


def image(sizes=(), subtleties=(), scores=(), alarms=(), patient="p", probability=None):
    """Lesions in a row; ``scores`` of those that are found, 0 for the others."""
    lesions = [Target(10, 20 * i, 8, 8, mm) for i, mm in enumerate(sizes)]
    lesions += [Target(10, 20 * i, 8, 8, None, value) for i, value in enumerate(subtleties)]
    found = [Candidate(score, 10, 20 * i, 8) for i, score in enumerate(scores) if score]
    return ScoredImage(patient, lesions, [*found, *[Candidate(s, 500, 500, 8) for s in alarms]], probability)


def test_by_hand():
    """Two images; 4 lesions found at 0.9, 0.7, 0.5 and never; false positives at 0.8, 0.6, 0.6."""
    images = [image([5, 6], scores=[0.9, 0.7], alarms=[0.8]), image([9.9, 30], scores=[0.5, 0], alarms=[0.6, 0.6])]

    result = froc(images, draws=50)

    # points (false positives per image, sensitivity): (0, 1/4), (1/2, 1/4), (1/2, 1/2), (3/2, 1/2), (3/2, 3/4)
    expected = [1 / 4, 1 / 4, 1 / 2, 1 / 2, 3 / 4, 3 / 4, 3 / 4]
    assert [e.value for e in result.at_rate.values()] == expected
    assert result.score.value == pytest.approx(sum(expected) / 7)
    assert {name: (e.value, e.n) for name, e in result.by_size.items()} == {
        "<6": (1, 1),
        "6-10": (0.5, 2),
        ">=30": (0, 1),
    }
    assert (result.images, result.patients, result.lesions, result.candidates) == (2, 1, 4, 6)
    assert [result.threshold_at(rate) for rate in (0, 0.4, 0.5, 1.4, 1.5)] == [0.9, 0.9, 0.7, 0.7, 0.5]


@pytest.mark.parametrize(
    ("mm", "group"),
    [(5.99, "<6"), (6, "6-10"), (10, "10-20"), (20, "20-30"), (29.9, "20-30"), (30, ">=30"), (None, "unknown")],
)
def test_size_groups(mm, group):
    assert list(froc([image([mm])], draws=0).by_size) == [group]


@pytest.mark.parametrize(
    ("rating", "group"), [(1, "1"), (1.49, "1"), (1.5, "2"), (2.5, "3"), (4.5, "5"), (5, "5"), (None, "unknown")]
)
def test_subtlety_groups(rating, group):
    assert list(froc([image(subtleties=[rating])], draws=0).by_subtlety) == [group]


def test_no_images_define_nothing():
    record = froc([]).record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(flat(record)) == {0, -1}
    assert (record["images"], record["score"]["value"], record["auc"]["value"]) == (0, None, None)


def test_without_lesions_no_sensitivity_is_defined_but_false_positives_are():
    result = froc([image(alarms=[0.5, 0.4]), image()])
    assert result.score.value is result.score.low is result.auc.value is result.at_rate[1.0].value is None
    assert result.false_positives.tolist() == [0, 0.5, 1]
    assert np.isnan(result.sensitivity).all()
    assert result.threshold_at(0.5) == 0.5
    assert (result.by_size, result.by_subtlety) == ({}, {})


def test_without_candidates_every_sensitivity_is_zero():
    result = froc([image([5, 20]), image()])
    assert {e.value for e in [*result.at_rate.values(), result.score, *result.by_size.values()]} == {0}
    assert (result.score.low, result.score.high) == (0, 0)
    assert result.auc.value == 0.5  # nothing tells the two images apart
    assert result.threshold_at(8) is None


def test_without_false_positives_the_curve_is_level():
    result = froc([image([5, 20], scores=[0.9, 0])])
    assert {e.value for e in result.at_rate.values()} == {0.5}


def test_lesions_that_are_ignored_are_not_counted_and_their_image_is_no_negative():
    ignored = ScoredImage("q", [Target(10, 10, 8, 8, ignore=True)], [Candidate(0.9, 10, 10, 8)])
    with_it, without = froc([image([5], scores=[0.8]), image(), ignored]), froc([image([5], scores=[0.8]), image()])
    assert (with_it.lesions, with_it.ignored, with_it.auc.n) == (1, 1, 2)
    assert with_it.auc.value == without.auc.value == 1
    assert with_it.score.value == 1


def test_the_probability_of_the_head_goes_before_candidates():
    seen = [image([5], scores=[0.2], probability=0.9), image(alarms=[0.8], probability=0.1)]
    assert froc(seen).auc.value == 1
    assert froc([replace(i, probability=None) for i in seen]).auc.value == 0
    with pytest.raises(ValueError, match="each of 2 images or for none, but got 1"):
        froc([seen[0], replace(seen[1], probability=None)])
    with pytest.raises(ValueError, match="NaN"):
        froc([replace(i, probability=math.nan) for i in seen])


def test_the_interval_holds_the_truth_19_times_in_20():
    """Patients find their nodules with a chance of their own; on average 0.7. No false positives."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(100):
        images = []
        for patient in range(40):
            chance = rng.choice([0.5, 0.9])
            images += [image([5], scores=[float(rng.random() < chance)], patient=str(patient)) for _ in range(3)]
        score = froc(images, draws=300, seed=trial).score
        held += score.low <= 0.7 <= score.high
    assert 0.88 <= held / 100 <= 0.99


def test_images_of_one_patient_widen_the_interval():
    def width(patients):
        hits = [image([5], scores=[score], patient=p) for score, p in zip([0.9] * 10 + [0] * 10, patients, strict=True)]
        score = froc(hits).score
        return score.high - score.low

    assert width("aaaaabbbbbcccccddddd") > 1.5 * width([str(i) for i in range(20)])


def test_the_same_seed_gives_the_same_intervals():
    images = [image([5], scores=[s], alarms=[0.3], patient=str(i)) for i, s in enumerate([0.1, 0.9, 0.5, 0])]
    assert froc(images, seed=3).record() == froc(images, seed=3).record()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=30))
def test_auc_agrees_with_scikit_learn(pairs):
    truth, scores = [pair[0] for pair in pairs], [pair[1] / 9 for pair in pairs]
    if len(set(truth)) < 2:
        assert auc(truth, scores) is None
    else:
        assert auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_auc_of_nothing_is_not_defined_and_of_nan_is_refused():
    assert auc([], []) is None
    with pytest.raises(ValueError, match="NaN"):
        auc([True, False], [math.nan, 0.1])
    with pytest.raises(ValueError, match="one score per image"):
        auc([True, False], [0.1])
