"""URLs lose their secrets and nothing else."""

from __future__ import annotations

import pytest

from pipeline.urls import without_credentials, without_user_info


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("s3://key:secret@bucket/a.mp4", "s3://bucket/a.mp4"),
        ("s3://key:sec/ret+x@bucket/a.mp4", "s3://bucket/a.mp4"),
        ("S3A://key:sec%2Fret@bucket", "S3A://bucket"),
        ("s3://bucket/a@b:c.mp4", "s3://bucket/a@b:c.mp4"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("http://host:8080/a@b.mp4", "http://host:8080/a@b.mp4"),
        ("https://user:word@host/a.mp4?X-Amz-Signature=f00&x=1", "https://host/a.mp4"),
        ("put s3://k:s@b/x: refused by http://u:p@h/y?sig=1 twice", "put s3://b/x: refused by http://h/y twice"),
        (
            "abfss://container@account.dfs.core.windows.net/a.mp4",
            "abfss://container@account.dfs.core.windows.net/a.mp4",
        ),
        ("abfs://name:key@account/a.mp4", "abfs://account/a.mp4"),
        ("/videos/a@b?c=d.mp4", "/videos/a@b?c=d.mp4"),
    ],
)
def test_user_info_and_signatures_go(given: str, clean: str) -> None:
    assert without_credentials(given) == clean


def test_a_query_may_belong_to_an_address() -> None:
    assert without_user_info("http://u:p@h/y?sig=1") == "http://h/y?sig=1"
