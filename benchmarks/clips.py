"""Long clips for benchmarks: the demo video's packets, repeated without decoding them."""

from __future__ import annotations

from pathlib import Path

import av

DEMO = Path(__file__).parent.parent / "examples" / "media" / "portrait.mp4"


def repeated(target: Path, seconds: float, source: Path = DEMO) -> Path:
    """Writes `target`: `source` over and over, at least `seconds` long."""
    with av.open(str(target), "w") as output:
        stream = None
        offset = 0
        while True:
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(video)
                    span = round(float(container.duration / av.time_base) / video.time_base)
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = stream
                    output.mux(packet)
                offset += span
                if offset * video.time_base >= seconds:
                    return target
