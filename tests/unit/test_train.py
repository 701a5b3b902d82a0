"""Training: it learns, its curve is written, and a continued run equals an uninterrupted one."""

from __future__ import annotations

import csv
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed

from ran_model import train as training
from ran_model.batches import shuffled
from ran_model.config import ModelConfig
from ran_model.data import FaceSet
from ran_model.evaluate import predict_probabilities, predict_together
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork, ran_from_single_pass
from ran_model.resume import TrainingState
from ran_model.train import train
from ran_model.train_config import TrainConfig, learning_rate

SMALL = ModelConfig(input_size=32, aligned_size=32, classes=("neutral", "happiness"))


def halves(count: int) -> FaceSet:
    """Faces that are bright above or bright below: mirroring and crops can't hide which."""
    labels = torch.arange(count) % 2
    faces = torch.randint(0, 60, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index, label in enumerate(labels.tolist()):
        rows = slice(4, 14) if label else slice(18, 28)
        faces[index, :, rows] += 150
    return FaceSet(faces_BCSS=faces, targets_BK=torch.eye(2)[labels], labels_B=labels)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_both_stages_learn_an_easy_task(tmp_path: Path) -> None:
    torch.manual_seed(0)
    faces = halves(32)
    config = TrainConfig(optimizer="adamw", epochs=5, batch_size=8, learning_rate=1e-3, mean_decay=0.8, bf16=False)
    single = SinglePassNetwork(SMALL)
    train(single, faces, faces, config, tmp_path / "single")
    network = ran_from_single_pass(single)
    sgd = TrainConfig(epochs=1, batch_size=16, learning_rate=0.01, mean_decay=0.5, bf16=False)
    train(network, faces, faces, sgd, tmp_path / "ran")
    for trained in (single, network):
        assert not trained.training
        assert (predict_probabilities(trained, faces).argmax(dim=1) == faces.labels_B).float().mean() > 0.95
    curve = rows(tmp_path / "single")
    assert [row["epoch"] for row in curve] == ["1", "2", "3", "4", "5"]
    first, *later = (float(row["loss"]) for row in curve)
    assert min(later) < 0.7 * first  # it leaps: some of the random regions hide the answer


@pytest.mark.parametrize(("killed_at", "optimizer"), [(1, "adamw"), (2, "sgd"), (3, "adamw")])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(killed_at: int, optimizer: str, tmp_path: Path) -> None:
    """Two epochs of two steps, killed in the middle of the first, at its end, and in the second."""
    faces = halves(32)
    config = TrainConfig(optimizer=optimizer, epochs=2, batch_size=16, learning_rate=1e-3, bf16=False)
    single = killed_at == 3  # whose regions are drawn anew in every step

    def fresh(seed: int) -> RegionAttentionNetwork | SinglePassNetwork:
        torch.manual_seed(seed)
        return SinglePassNetwork(SMALL) if single else RegionAttentionNetwork(SMALL)

    whole = fresh(0)
    train(whole, faces, faces, config, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def kill(step: int, steps: int, loss: float) -> None:
        if step == killed_at + 1:
            raise KilledError

    with pytest.raises(KilledError):
        train(fresh(0), faces, faces, config, tmp_path / "broken", progress=kill, checkpoint_s=0.0)
    steps: list[int] = []
    continued = fresh(99)
    train(continued, faces, faces, config, tmp_path / "broken", progress=lambda step, *_: steps.append(step))
    assert steps == list(range(killed_at + 1, 5))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(continued.state_dict()[name], tensor, rtol=0, atol=0)
    curves = [rows(tmp_path / name) for name in ("whole", "broken")]
    for undisturbed, resumed in zip(*curves, strict=True):
        assert undisturbed["loss"] == resumed["loss"]
        assert undisturbed["validation_accuracy"] == resumed["validation_accuracy"]


def test_moments_go_on_in_the_order_of_axes_that_they_had(tmp_path: Path) -> None:
    """Otherwise the optimizer's steps are slow after a kill."""
    faces = halves(16)
    states = []
    for _ in range(2):
        single = SinglePassNetwork(SMALL)
        optimizer = training._optimizer(single, TrainConfig(optimizer="adamw"))
        state = TrainingState(network=single, optimizer=optimizer, mean=dict(single.state_dict()))
        states.append(state)
        state.restore(tmp_path / "checkpoint.safetensors")
        if not state.steps:
            single(faces.faces_BCSS, faces.boxes(SMALL)[:, :1]).logits_BK.sum().backward()
            optimizer.step()
            state.steps = 1
            state.save(tmp_path / "checkpoint.safetensors")
    first, second = (
        {name: state.optimizer.state[parameter] for name, parameter in state.network.named_parameters()}
        for state in states
    )
    assert not second["trunk.backbone.layer1.0.conv1.weight"]["exp_avg"].is_contiguous()
    for name, parameter in states[1].network.named_parameters():
        assert second[name]["exp_avg"].stride() == parameter.stride()
        assert torch.equal(second[name]["exp_avg_sq"], first[name]["exp_avg_sq"])
        assert torch.equal(second[name]["step"], first[name]["step"])


def test_a_kill_between_the_checkpoint_and_the_curve_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = halves(16)
    config = TrainConfig(epochs=2, batch_size=16, learning_rate=1e-3, bf16=False)

    class KilledError(Exception):
        pass

    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(training, "_end_epoch", kill)
        with pytest.raises(KilledError):
            train(SinglePassNetwork(SMALL), faces, faces, config, tmp_path)
    train(SinglePassNetwork(SMALL), faces, faces, config, tmp_path)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]


def test_a_checkpoint_within_an_epoch_comes_with_time(tmp_path: Path) -> None:
    """Not with every step: writing takes as long as some of them."""
    faces, written = halves(32), []
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=1e-3, bf16=False)
    for checkpoint_s in (0.0, 3600.0):
        folder = tmp_path / str(checkpoint_s)

        def look(step: int, *_: object, path: Path = folder / "checkpoint.safetensors") -> None:
            written.append(path.exists())

        train(SinglePassNetwork(SMALL), faces, None, config, folder, progress=look, checkpoint_s=checkpoint_s)
    assert written == [False, True, True, True, False, False, False, False]


def test_an_epoch_may_end_early(tmp_path: Path) -> None:
    faces = halves(32)
    config = TrainConfig(epochs=2, epoch_steps=1, batch_size=8, learning_rate=1e-3, bf16=False)
    seen: list[tuple[int, int]] = []
    single = SinglePassNetwork(SMALL)
    train(single, faces, faces, config, tmp_path, progress=lambda step, steps, loss: seen.append((step, steps)))
    assert seen == [(1, 2), (2, 2)]
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]


def _one_of_two(rank: int, folder: Path) -> dict[str, np.ndarray]:
    """Both processes start alike and see halves of each batch; returns all that was trained, statistics included."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    single, faces = SinglePassNetwork(SMALL), halves(16)
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=0.05, mean_decay=0.5, bf16=False)
    start = single.classifier.weight.detach().clone()
    train(single, faces, faces, config, folder / "trained")
    odd = halves(17)
    together = predict_together(single, odd)
    torch.distributed.destroy_process_group()
    torch.testing.assert_close(together, predict_probabilities(single, odd), rtol=1e-5, atol=1e-6)
    assert not torch.equal(single.classifier.weight, start)
    return {name: tensor.numpy() for name, tensor in single.state_dict().items()}


def test_processes_train_one_network(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        first, second = pool.map(_one_of_two, range(2), [tmp_path] * 2)
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values, err_msg=name)


def test_a_teacher_joins_the_targets() -> None:
    teacher = SinglePassNetwork(SMALL)
    with torch.no_grad():
        teacher.classifier.weight.zero_()
        teacher.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    faces = halves(4)
    targets = training._taught(faces.targets_BK, teacher, faces.faces_BCSS, faces.boxes(SMALL), 0.25)
    answer = torch.tensor([0.0, 1.0]).softmax(dim=0)
    torch.testing.assert_close(targets, 0.75 * faces.targets_BK + 0.25 * answer)


def test_rare_classes_are_drawn_more_often_in_training_only() -> None:
    labels = torch.tensor([0] * 900 + [1] * 100)
    generator = torch.Generator().manual_seed(0)
    assert sorted(shuffled(labels, 0.0, generator).tolist()) == list(range(1000))
    drawn = labels[shuffled(labels, 1.0, generator)]
    assert 0.4 < drawn.float().mean() < 0.6


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path: Path) -> None:
    faces = halves(8)
    train(SinglePassNetwork(SMALL), faces, faces, TrainConfig(epochs=1, batch_size=8, bf16=False), tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        train(SinglePassNetwork(SMALL), faces, faces, TrainConfig(epochs=2, batch_size=8, bf16=False), tmp_path)
    larger = SinglePassNetwork(replace(SMALL, input_size=40))  # its weights would fit
    with pytest.raises(ValueError, match="other settings"):
        train(larger, faces, faces, TrainConfig(epochs=1, batch_size=8, bf16=False), tmp_path)


def test_a_checkpoint_of_another_origin_is_not_taken_up(tmp_path: Path) -> None:
    faces, config = halves(8), TrainConfig(epochs=1, batch_size=8, bf16=False)
    train(SinglePassNetwork(SMALL), faces, faces, config, tmp_path, origin=faces.digest())
    train(SinglePassNetwork(SMALL), faces, faces, config, tmp_path, origin=halves(8).digest())
    relabelled = replace(faces, targets_BK=faces.targets_BK.flip(1))
    with pytest.raises(ValueError, match="another --work, or delete it"):
        train(SinglePassNetwork(SMALL), faces, faces, config, tmp_path, origin=relabelled.digest())
    assert replace(faces, labels_B=faces.labels_B.flip(0)).digest() != faces.digest()  # class balance goes by labels


def test_too_few_faces_for_a_batch_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only 4 faces"):
        train(SinglePassNetwork(SMALL), halves(4), None, TrainConfig(batch_size=8), tmp_path)


def test_the_region_biased_loss_can_be_left_out() -> None:
    torch.manual_seed(0)
    faces = halves(4)
    output = RegionAttentionNetwork(SMALL)(faces.faces_BCSS, faces.boxes(SMALL))
    losses = [
        training._loss(output, faces.targets_BK, TrainConfig(margin=0.5, region_bias=weight)).item()
        for weight in (0.0, 1.0, 2.0)
    ]
    assert losses[1] > losses[0]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0])


def test_the_rate_rises_once_and_falls_to_zero() -> None:
    config = TrainConfig(learning_rate=0.1, warmup=0.2)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    top = rates.index(max(rates))
    assert top == 20
    assert rates[top] == pytest.approx(0.1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-4


def test_what_is_kept_is_the_running_mean_of_the_weights(tmp_path: Path) -> None:
    """min(decay, (t + 1) / (t + 10)) of the old mean and the rest of the new weights, from the weights at the start."""
    torch.manual_seed(0)
    single, faces = SinglePassNetwork(SMALL), halves(24)
    mean = single.classifier.weight.detach().double()

    def follow(step: int, *_: object) -> None:
        nonlocal mean
        decay = min(0.2, step / (step + 9))
        mean = decay * mean + (1 - decay) * single.classifier.weight.detach().double()

    config = TrainConfig(optimizer="adamw", epochs=1, batch_size=8, learning_rate=1e-2, mean_decay=0.2, bf16=False)
    train(single, faces, None, config, tmp_path, progress=follow)
    torch.testing.assert_close(single.classifier.weight.double(), mean, rtol=1e-5, atol=1e-7)


def test_mixed_precision_keeps_weights_in_float32_and_trains_nearly_the_same(tmp_path: Path) -> None:
    faces, trained = halves(16), {}
    for bf16 in (False, True):
        torch.manual_seed(0)
        network = RegionAttentionNetwork(SMALL)
        start = network.classifier.weight.detach().clone()
        config = TrainConfig(optimizer="sgd", epochs=1, batch_size=8, learning_rate=0.01, mean_decay=0.0, bf16=bf16)
        train(network, faces, None, config, tmp_path / str(bf16))
        assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
        trained[bf16] = (network.classifier.weight.detach() - start).flatten()
    assert not torch.equal(trained[True], trained[False])  # it did compute in bfloat16
    assert torch.cosine_similarity(trained[True], trained[False], dim=0) > 0.5  # unrelated ones: 0


def test_going_on_in_other_circumstances_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def state(processes: str) -> TrainingState:
        single = SinglePassNetwork(SMALL)
        optimizer = training._optimizer(single, TrainConfig())
        told = {"processes": processes, "precision": "float32"}
        return TrainingState(network=single, optimizer=optimizer, mean=dict(single.state_dict()), circumstances=told)

    path = tmp_path / "checkpoint.safetensors"
    state("2").save(path)
    state("2").restore(path)
    assert not caplog.records
    state("8").restore(path)
    (record,) = caplog.records
    assert "begun with processes 2, going on with 8" in record.getMessage()
