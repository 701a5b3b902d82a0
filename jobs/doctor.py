"""`doctor`: does this machine have what a run needs? Each check really does the thing."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import click

from jobs.options import json_option, parse_storage_options, storage_option
from jobs.text import table
from pipeline.errors import CapacityError, RanError

FACE = "face.jpg"


@click.command("doctor")
@click.option("--store", metavar="URL", help="Also check that this output store can hold a dataset.")
@storage_option
@json_option
def doctor_command(store: str | None, storage_options: tuple[str, ...], as_json: bool) -> int:
    """Check decoders, detector and model on a bundled face, Ray, devices, and with --store the output store."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", lambda: sys.version.split()[0]),
        ("video decoder", _decoder),
        ("detector", _detector),
        ("model", _model),
        ("device", _device),
        ("ray", _ray),
    ]
    if store is not None:
        checks.append(("store", lambda: _store(store, storage_options)))
    results = []
    for name, check in checks:
        begun = time.monotonic()
        try:
            ok, detail = True, check()
        except RanError as error:
            ok, detail = False, str(error).removesuffix("; run the same command again to resume")
        except Exception as error:  # each failure is a finding, not a crash
            ok, detail = False, f"{type(error).__name__}: {error}"
        results.append({"check": name, "ok": ok, "detail": detail, "seconds": round(time.monotonic() - begun, 2)})
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        rows = [("ok" if row["ok"] else "FAILED", row["check"], row["detail"]) for row in results]
        click.echo(table(("", "check", "what"), rows))
    failed = [str(row["check"]) for row in results if not row["ok"]]
    if failed:
        raise CapacityError(f"this machine is not ready: {', '.join(failed)}; see the messages above")
    return 0


def _face() -> Path:
    return Path(str(resources.files("jobs") / "doctor_media" / FACE))


def _decoder() -> str:
    """Writes two seconds of video and reads them back by both decoders, so that their libraries are really used."""
    import av
    import numpy as np
    import torch  # noqa: F401 - first: decord makes NVIDIA's BLAS global, and torch would crash in it

    import decord  # isort: skip

    from pipeline.config import Extraction
    from pipeline.media.video import VideoReader

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/check.mp4"
        with av.open(path, "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for value in range(50):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * value, np.uint8))
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        frames = sum(len(list(VideoReader(Path(path), extraction=Extraction(fps="all")).read(k))) for k in range(2))
        assert frames == 50, f"PyAV decoded {frames} of 50 frames"
        other = len(decord.VideoReader(path, num_threads=1))
        assert other == 50, f"decord sees {other} of 50 frames"
    return f"PyAV {av.__version__} and decord {decord.__version__} read 50 of 50 frames"


def _detector() -> str:
    import numpy as np
    from PIL import Image

    from pipeline.detect import load_detector

    detector = load_detector()
    found = detector.detect([np.asarray(Image.open(_face()).convert("RGB"))])[0]
    assert len(found.scores_N) == 1, f"found {len(found.scores_N)} faces in the bundled picture instead of 1"
    return f"{detector.name} found the bundled face, score {found.scores_N[0]:.2f}"


def _model() -> str:
    import numpy as np
    from PIL import Image

    from pipeline.detect import load_detector
    from ran_model.align import align_faces
    from ran_model.pretrained import default_model_dir, load_model
    from ran_model.regions import region_boxes

    image = np.asarray(Image.open(_face()).convert("RGB"))
    landmarks = load_detector().detect([image])[0].landmarks_N52
    model = load_model(default_model_dir())
    faces = align_faces(image, landmarks, np.asarray(model.config.template, np.float32), model.config.aligned_size)
    probabilities, _, attention = model.predict(faces, region_boxes(model.config, len(faces)))
    best = int(probabilities[0].argmax())
    assert abs(float(attention[0].sum()) - 1) < 1e-3, "attention weights don't sum to 1"
    return f"{model.config.name} {model.model_id}: {model.config.classes[best]} {probabilities[0, best]:.2f}"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name(0)}"
    return f"no GPU; CPU with {torch.get_num_threads()} threads"


def _ray() -> str:
    import ray

    from pipeline.cluster import connected

    with connected(None) as cluster:
        answer = ray.get(ray.remote(num_cpus=0.1)(_answer).remote())
        assert answer == 42, "a task returned something else than it was told to"
        return f"ray {ray.__version__}: {cluster.nodes} node(s), {cluster.cpus:g} logical CPUs, {cluster.gpus:g} GPUs"


def _answer() -> int:
    return 42


def _store(url: str, storage_options: tuple[str, ...]) -> str:
    from pipeline.storage.store import Store

    Store(url, parse_storage_options(storage_options)).probe()
    return f"{url} can be written and refuses a second write of the same entry"
