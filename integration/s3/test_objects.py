"""CreateFunction's S3Bucket, S3Key and S3ObjectVersion, on a real server (rclone) and on one with versions (moto)."""

from __future__ import annotations

import pytest

from serverfull.errors import InvalidParameterValue, RequestRefused
from serverfull.storage.objects import S3Objects
from serverfull.storage.s3 import S3Endpoint

BUCKET = "packages"


@pytest.fixture
async def rclone_objects(rclone):
    objects = S3Objects(rclone.endpoint)
    yield objects
    await objects.aclose()


async def test_an_object_is_fetched(rclone, rclone_objects):
    rclone.client.put_object(Bucket=BUCKET, Key="a b/ü.zip", Body=b"content")
    assert (await rclone_objects.fetch_object(BUCKET, "a b/ü.zip")).content == b"content"


async def test_an_object_that_is_not_there_is_refused_in_the_words_of_aws(rclone_objects):
    with pytest.raises(InvalidParameterValue) as refusal:
        await rclone_objects.fetch_object(BUCKET, "absent.zip")
    assert refusal.value.message == (
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
    )


async def test_a_bucket_that_is_not_there_is_refused_in_the_words_of_aws(rclone_objects):
    for bucket, code in (("absent", "NoSuchBucket"), ("no bucket", "InvalidBucketName")):
        with pytest.raises(InvalidParameterValue) as refusal:
            await rclone_objects.fetch_object(bucket, "absent.zip")
        assert refusal.value.message.startswith(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Me")


async def test_an_object_that_is_too_large_is_refused_before_it_is_downloaded(rclone_objects):
    with pytest.raises(InvalidParameterValue, match=r"^Unzipped size must be smaller than 262144000 bytes$"):
        await rclone_objects.fetch_object(BUCKET, "huge.zip")


async def test_who_may_not_have_an_object_is_told_so(rclone, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for endpoint in (rclone.as_somebody_else(), S3Endpoint(url=rclone.endpoint.url)):
        objects = S3Objects(endpoint)
        with pytest.raises(RequestRefused) as refusal:
            await objects.fetch_object(BUCKET, "a.zip")
        assert refusal.value.message.startswith(
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject "
            f"for {BUCKET}/a.zip. S3 Error Code: "
        )
        await objects.aclose()


async def test_versions_of_an_object_are_told_apart(moto):
    client = moto.client
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket="versioned", Key="a.zip", Body=b"first")["VersionId"]
    client.put_object(Bucket="versioned", Key="a.zip", Body=b"second")
    objects = S3Objects(moto.endpoint)
    assert (await objects.fetch_object("versioned", "a.zip", first)).content == b"first"
    assert (await objects.fetch_object("versioned", "a.zip")).content == b"second"
    with pytest.raises(InvalidParameterValue, match=r"^Error occurred while GetObject\. S3 Error Code: NoSuchVersion"):
        await objects.fetch_object("versioned", "a.zip", "0" * 32)
    await objects.aclose()


async def test_an_object_without_an_etag_is_told_by_its_size_and_its_time(rclone, rclone_objects):
    rclone.client.put_object(Bucket=BUCKET, Key="untold.zip", Body=b"1")
    before = await rclone_objects.look(BUCKET, "untold.zip")
    assert (await rclone_objects.fetch_object(BUCKET, "untold.zip")).etag == before
    rclone.client.delete_object(Bucket=BUCKET, Key="untold.zip")
    assert await rclone_objects.look(BUCKET, "untold.zip") is None
    rclone.client.put_object(Bucket=BUCKET, Key="untold.zip", Body=b"22")
    assert await rclone_objects.look(BUCKET, "untold.zip") != before
