"""The numbers of a comparison against pandas and numpy, on a committed dataset of two models."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.changed_faces import changed_faces
from jobs.compare import compare_command
from jobs.comparison import Comparison, compare
from jobs.dataset import OpenedDataset, opened
from jobs.face_pairs import MOST_GROUPS, face_pairs
from jobs.labelled_comparison import compare_labelled
from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog
from pipeline.storage.store import Store
from ran_model.labels import EXPRESSIONS
from tests.faulty_store import memory_url
from tests.staged_rows import MODEL, OTHER_MODEL, segment_id
from tests.two_models import ODD_REGION, write_dataset

SIZES = [3, 40, 1, 25, 60, 7, 12, 30, 5, 4]
ONLY_A = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared") / "out"
    write_dataset(folder, SIZES, only_first=ONLY_A, crops=b"\x89PNG no picture")
    return folder


@pytest.fixture(scope="module")
def joined(folder: Path) -> pd.DataFrame:
    """Faces of both models side by side, read as a user reads them."""
    rows = pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("faces/*/*.parquet"))]).to_pandas()
    rows[f"attention_{ODD_REGION}"] = [dict(pairs)[ODD_REGION] for pairs in rows["attention_other"]]
    a, b = (rows[rows["model_id"] == model] for model in (MODEL, OTHER_MODEL))
    return a.merge(b, on="face_id", suffixes=("_a", "_b"))


def _compared(folder: Path, a: str = MODEL, b: str = OTHER_MODEL, **given: int) -> Comparison:
    with opened(str(folder), ()) as dataset, face_pairs(dataset, a, b) as pairs:
        return compare(pairs, **given)


def _distance(joined: pd.DataFrame) -> pd.Series:
    p = [joined[[f"prob_{name}_{model}" for name in EXPRESSIONS]].fillna(0).to_numpy(float) for model in "ab"]
    return pd.Series(np.abs(p[0] - p[1]).sum(axis=1) / 2, index=joined["face_id"])


def test_counts_agreement_and_flips(folder: Path, joined: pd.DataFrame) -> None:
    answer = _compared(folder)
    assert answer.faces == len(joined) == sum(SIZES[:-ONLY_A])
    assert (answer.faces_only_a, answer.faces_only_b) == (sum(SIZES[-ONLY_A:]), 0)
    assert answer.sources == len(SIZES) - ONLY_A
    assert answer.agreement is not None
    same = joined["expression_a"] == joined["expression_b"]
    assert 0 < same.mean() < 1
    assert answer.agreement.value == pytest.approx(same.mean())
    flips = pd.crosstab(joined["expression_a"], joined["expression_b"])
    flips = flips.reindex(index=answer.expressions, columns=answer.expressions, fill_value=0)
    assert answer.expressions == EXPRESSIONS
    assert answer.flips == flips.to_numpy().tolist()
    assert answer.total_variation is not None
    assert answer.total_variation.value == pytest.approx(_distance(joined).mean())
    assert answer.classes_only_a == ("contempt",)
    assert answer.regions_only_a == ("nose", "random_1")
    assert answer.classes_only_b == answer.regions_only_b == ()
    json.dumps(answer.to_json(), allow_nan=False)


def test_shifts_of_every_shared_column_and_of_no_other(folder: Path, joined: pd.DataFrame) -> None:
    answer = {shift.column: shift for shift in _compared(folder).shifts}
    assert list(answer) == [
        *(f"prob_{name}" for name in EXPRESSIONS[:7]), "confidence", "entropy", "attention_whole", "attention_top_left",
        f"attention_{ODD_REGION}",
    ]  # fmt: skip
    for column, shift in answer.items():
        a, b = joined[f"{column}_a"].astype(float), joined[f"{column}_b"].astype(float)
        assert (shift.mean_a, shift.mean_b) == pytest.approx((a.mean(), b.mean()), abs=1e-9)
        assert shift.shift.value == pytest.approx((b - a).mean(), abs=1e-9)


def test_shares_over_other_regions_and_entropy_over_other_classes_are_marked(folder: Path, tmp_path: Path) -> None:
    starred = {"entropy", "attention_whole", "attention_top_left", f"attention_{ODD_REGION}"}
    assert {shift.column for shift in _compared(folder).shifts if not shift.comparable} == starred
    page = tmp_path / "page.html"
    said = CliRunner().invoke(compare_command, [str(folder), MODEL, OTHER_MODEL, "--to", str(page)]).stdout
    assert "entropy *" in said
    assert "attention_top_left *" in said
    assert "confidence *" not in said
    for text in (said, html.unescape(page.read_text())):
        assert "entropy is over each model's own classes, and these differ" in text
        assert "attention is shared out over each model's own regions, and these differ" in text
    shifts = json.loads(CliRunner().invoke(compare_command, [str(folder), MODEL, OTHER_MODEL, "--json"]).stdout)
    assert {shift["column"] for shift in shifts["shifts"] if not shift["comparable"]} == starred
    write_dataset(tmp_path / "alike", [5, 9], same=True)
    assert all(shift.comparable for shift in _compared(tmp_path / "alike").shifts)
    assert (
        "not comparable"
        not in CliRunner().invoke(compare_command, [str(tmp_path / "alike"), MODEL, OTHER_MODEL]).stdout
    )


def test_intervals_are_those_of_resampled_sources(folder: Path, joined: pd.DataFrame) -> None:
    """Every resample is built face by face here."""
    answer = _compared(folder)
    values = pd.DataFrame(
        {
            "source": joined["source_id_a"],
            "agreement": joined["expression_a"] == joined["expression_b"],
            "shift": joined["prob_fear_b"].astype(float) - joined["prob_fear_a"],
        }
    )
    parts = [part[["agreement", "shift"]].to_numpy(float) for _, part in values.groupby("source")]
    random = np.random.default_rng(11)
    means = [
        np.concatenate([parts[index] for index in random.integers(len(parts), size=len(parts))]).mean(axis=0)
        for _ in range(6000)
    ]
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    shift = {each.column: each.shift for each in answer.shifts}["prob_fear"]
    for column, estimate in enumerate((answer.agreement, shift)):
        assert estimate is not None
        width = high[column] - low[column]
        assert width > 0
        assert (estimate.low, estimate.high) == pytest.approx((low[column], high[column]), abs=0.06 * width)


def test_sources_with_most_changed_faces_come_first(folder: Path, joined: pd.DataFrame) -> None:
    answer = _compared(folder, sources=4)
    same = (joined["expression_a"] == joined["expression_b"]).groupby(joined["source_uri_a"])
    expected = pd.DataFrame({"faces": same.size(), "same": same.sum(), "agreement": same.mean()})
    assert answer.agreement_quantiles == pytest.approx(expected["agreement"].quantile([0, 0.25, 0.5, 0.75, 1]).tolist())
    changed = (expected["faces"] - expected["same"]).sort_values(ascending=False)
    assert [row.faces - row.same for row in answer.by_source] == changed.tolist()[:4]
    for row in answer.by_source:
        assert (row.faces, row.same, row.agreement) == tuple(expected.loc[row.source_uri])


def test_swapping_the_models_turns_every_sign(folder: Path) -> None:
    one, other = _compared(folder), _compared(folder, OTHER_MODEL, MODEL)
    assert np.array(one.flips).T.tolist() == other.flips
    assert (one.faces_only_a, one.faces_only_b) == (other.faces_only_b, other.faces_only_a)
    for left, right in zip(one.shifts, other.shifts, strict=True):
        assert left.shift.value == pytest.approx(-right.shift.value)
        assert left.shift.low == pytest.approx(-(right.shift.high or 0))


def test_most_changed_faces(folder: Path, joined: pd.DataFrame) -> None:
    with opened(str(folder), ()) as dataset, face_pairs(dataset, MODEL, OTHER_MODEL) as pairs:
        every, few = changed_faces(pairs, 1000), changed_faces(pairs, 9)
        none = changed_faces(pairs, 0)
    expected = _distance(joined)
    expected = expected[expected.sort_index().sort_values(ascending=False, kind="stable").index]
    assert [face.total_variation for face in every] == pytest.approx(expected.tolist())
    assert {face.face_id: face.total_variation for face in every} == pytest.approx(expected.to_dict())
    assert none == []
    by_id = joined.set_index("face_id")
    seen: dict[str, int] = {}
    wanted = []
    for face_id in expected.index:
        source = by_id.loc[face_id, "source_uri_a"]
        seen[source] = seen.get(source, 0) + 1
        wanted += [face_id] if seen[source] <= 3 else []
    assert [face.face_id for face in few] == wanted[:9]
    for face in few:
        row = by_id.loc[face.face_id]
        assert (face.source_uri, face.frame, face.timestamp) == (
            row["source_uri_a"], row["frame_a"], row["timestamp_a"],
        )  # fmt: skip
        assert (face.a.expression, face.b.expression) == (row["expression_a"], row["expression_b"])
        assert (face.png is None) == (row["source_uri_a"] == "/films/0.mp4")
        assert "contempt" in face.a.probabilities
        assert "contempt" not in face.b.probabilities


def _labels(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("face_id,expression\n" + "".join(f"{face},{name}\n" for face, name in rows))
    return path


def test_labels(folder: Path, joined: pd.DataFrame, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    labelled = joined.sample(120, random_state=2)
    # Labels on which the models are right unequally often.
    names = [
        str(random.choice([row.expression_a, row.expression_a, row.expression_b, "contempt"]))
        for row in labelled.itertuples()
    ]
    rows = list(zip(labelled["face_id"], names, strict=True))
    only_a = pq.read_table(next(folder.glob(f"faces/{MODEL}/*.parquet"))).to_pandas()
    alone = sorted(set(only_a["face_id"]) - set(joined["face_id"]))[0]
    extra = [(alone, "fear"), ("0000-0-0-0", "Happy"), ("0001-0-0-0", ""), rows[0]]
    path = _labels(tmp_path / "labels.csv", rows + extra)
    with opened(str(folder), ()) as dataset, face_pairs(dataset, MODEL, OTHER_MODEL) as pairs:
        answer = compare_labelled(pairs, path, faces=len(joined))
    a = labelled["expression_a"].to_numpy() == names
    b = labelled["expression_b"].to_numpy() == names
    assert (answer.faces, answer.labels) == (120, 122)
    assert (answer.labels_only_a, answer.labels_only_b, answer.labels_unknown) == (1, 0, 1)
    assert answer.unlabelled == len(joined) - 120
    assert answer.notes == [
        "rows without a label: 1 (0001-0-0-0)", f"rows that repeat a face_id: 1 ({rows[0][0]})",
    ]  # fmt: skip
    assert answer.accuracy_a.value == pytest.approx(a.mean())
    assert answer.accuracy_b.value == pytest.approx(b.mean())
    assert answer.difference.value == pytest.approx(b.mean() - a.mean())
    assert answer.difference.value < 0
    assert answer.difference.low is not None
    assert answer.difference.high is not None
    assert answer.difference.low < answer.difference.value < answer.difference.high
    assert (answer.mcnemar.only_a, answer.mcnemar.only_b) == ((a & ~b).sum(), (b & ~a).sum())
    right = pd.DataFrame({"label": names, "a": a, "b": b}).groupby("label").agg(["size", "sum"])
    assert {row.label: (row.faces, row.right_a, row.right_b) for row in answer.by_label} == {
        name: (right.loc[name, ("a", "size")], right.loc[name, ("a", "sum")], right.loc[name, ("b", "sum")])
        for name in right.index
    }
    assert [row.right_b for row in answer.by_label if row.label == "contempt"] == [0]


def _said_of_labels(folder: Path, labels: Path) -> tuple[str, str]:
    """What the text and the page say, each from its part on labels on."""
    to = labels.with_suffix(".html")
    done = CliRunner().invoke(
        compare_command, [str(folder), MODEL, OTHER_MODEL, "--labels", str(labels), "--to", str(to)]
    )
    assert done.exit_code == 0, done.output
    return done.stdout.partition(" labelled faces of ")[2], to.read_text().partition("<h2>With labels</h2>")[2]


def test_few_labelled_sources_among_many_are_said_beside_their_figures(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [4] * 24)
    with opened(str(tmp_path / "out"), ()) as dataset:
        faces = dataset.query(f"SELECT source_id, face_id FROM all_faces WHERE model_id = '{MODEL}' ORDER BY ALL")
    sources = sorted({row["source_id"] for row in faces})
    for count, says, trusted in ((1, "this is one source", False), (3, "Over 3 sources", False), (24, "", True)):
        rows = [(row["face_id"], "fear") for row in faces if row["source_id"] in sources[:count]]
        for text in _said_of_labels(tmp_path / "out", _labels(tmp_path / f"{count}.csv", rows)):
            assert says in text
            assert ("they come out too narrow" in text) == (count == 3)
            assert ("trust the interval" in text) == trusted
            assert "takes faces as independent" in text


def test_labels_that_fit_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with (
            opened(str(folder), ()) as dataset,
            face_pairs(dataset, MODEL, OTHER_MODEL) as pairs,
            pytest.raises(UsageError) as refusal,
        ):
            compare_labelled(pairs, path, faces=1)
        return str(refusal.value)

    assert "labels 1 faces, none of which" in refused(_labels(tmp_path / "other.csv", [("no-such-face", "fear")]))
    assert "line 2: 'bored'" in refused(_labels(tmp_path / "bored.csv", [("no-such-face", "bored")]))
    assert "is missing" in refused(tmp_path / "nowhere.csv")


def test_equal_models_agree_and_no_face_changed(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [5, 9], same=True)
    answer = _compared(tmp_path / "out")
    assert answer.agreement is not None
    assert asdict(answer.agreement) == {"value": 1, "low": 1, "high": 1}
    assert all(each.shift.value == 0 for each in answer.shifts)
    with opened(str(tmp_path / "out"), ()) as dataset, face_pairs(dataset, MODEL, OTHER_MODEL) as pairs:
        assert changed_faces(pairs, 10) == []


def test_models_without_a_common_face(tmp_path: Path) -> None:
    write_dataset(tmp_path / "apart", [0, 6], only_first=1)
    answer = _compared(tmp_path / "apart")
    assert (answer.faces, answer.faces_only_a, answer.agreement) == (0, 6, None)
    done = CliRunner().invoke(compare_command, [str(tmp_path / "apart"), MODEL, OTHER_MODEL])
    assert done.exit_code == 0, done.output
    assert "nothing to compare" in done.output
    done = CliRunner().invoke(compare_command, [str(tmp_path / "apart"), MODEL, OTHER_MODEL, "--json"])
    assert json.loads(done.stdout)["agreement"] is None


def test_one_source_gives_no_interval_and_says_so(tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", [30])
    answer = _compared(tmp_path / "out")
    assert answer.agreement is not None
    assert answer.agreement.low is answer.agreement.high is None
    done = CliRunner().invoke(compare_command, [str(tmp_path / "out"), MODEL[:1], OTHER_MODEL[:1]])
    assert "this is one source" in done.output


def test_very_many_sources_are_pooled_and_the_interval_stays(tmp_path: Path) -> None:
    sources = MOST_GROUPS + 300
    write_dataset(tmp_path / "out", [1] * sources)
    answer = _compared(tmp_path / "out")
    assert answer.sources == sources
    estimate = answer.agreement
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    half = 1.96 * np.sqrt(estimate.value * (1 - estimate.value) / sources)  # each source has one face
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)


def test_models_are_found_by_their_beginning(folder: Path) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(UsageError) as refusal:
            compare_command.main([str(folder), *arguments], standalone_mode=False)
        return str(refusal.value)

    with opened(str(folder), ()) as dataset:
        assert [dataset.find_model(name) for name in ("a", "bbb", MODEL)] == [MODEL, OTHER_MODEL, MODEL]
    for arguments in (("c", "b"), ("a", ""), ("a", "aaa"), (MODEL, MODEL + "0")):
        message = refused(*arguments)
        assert MODEL in message
        assert OTHER_MODEL in message
    assert "the same model" in refused("a", "aaa")
    assert ".html" in refused("a", "b", "--to", "page.pdf")


def test_a_beginning_of_several_models_is_refused() -> None:
    log = CommitLog(Store(memory_url()))
    for model in ("abc000000000", "abd000000000"):
        log.state.apply(Entry(run_id="r", model_id=model, segments=[segment_id(1)]))
    dataset = OpenedDataset(store=Store(memory_url()), extraction=Extraction(), log=log, connection=duckdb.connect())
    assert dataset.find_model("abd") == "abd000000000"
    with pytest.raises(UsageError, match="several; models are: abc000000000, abd000000000"):
        dataset.find_model("ab")
