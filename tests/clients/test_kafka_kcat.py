"""kcat, unmodified: every codec, any offset, groups, times."""

import subprocess

import pytest


def kcat(server, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Runs kcat against the server; gives what it wrote."""
    done = subprocess.run(
        ["kcat", "-b", server.kafka, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout if check else done.stdout + done.stderr


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", ["false", "true"])
def test_every_codec_round_trips(server, codec, idempotent):
    lines = "".join(f"{codec} {n}\n" for n in range(2000))
    kcat(server, "-P", "-t", "t", "-z", codec, "-X", f"enable.idempotence={idempotent}", stdin=lines)
    assert kcat(server, "-C", "-t", "t", "-e", "-q") == lines


def test_reading_begins_where_it_is_told_to(server):
    kcat(server, "-P", "-t", "t", stdin="".join(f"{n}\n" for n in range(100)))
    read = lambda offset: kcat(server, "-C", "-t", "t", "-o", offset, "-e", "-q").split()
    assert read("beginning") == [str(n) for n in range(100)]
    assert read("97") == ["97", "98", "99"], "from inside a batch"
    assert read("-2") == ["98", "99"]
    assert read("end") == []


def test_keys_headers_and_partitions_come_back(server):
    kcat(server, "-P", "-t", "t", "-k", "key", "-H", "a=1", "-H", "a=2", stdin="value\n")
    form = "%k|%h|%s|%p|%o"
    assert kcat(server, "-C", "-t", "t", "-e", "-q", "-f", form) == "key|a=1,a=2|value|0|0"


def test_a_tombstone_is_a_null(server):
    kcat(server, "-P", "-t", "t", "-K", ":", "-Z", stdin="gone:\n")
    assert kcat(server, "-C", "-t", "t", "-e", "-q", "-f", "%k %S") == "gone -1"


def test_offsets_are_found_by_time(server):
    kcat(server, "-P", "-t", "t", stdin="a\nb\n")
    stamps = kcat(server, "-C", "-t", "t", "-e", "-q", "-f", "%T\n").split()
    assert kcat(server, "-Q", "-t", f"t:0:{stamps[0]}").strip() == "t [0] offset 0"
    later = int(stamps[1]) + 1_000_000
    # librdkafka's name for "at the end".
    assert kcat(server, "-Q", "-t", f"t:0:{later}").strip() in ("t [0] offset -1", "t [0] offset 2")


def test_a_group_goes_on_where_it_stopped(server):
    kcat(server, "-P", "-t", "t", stdin="".join(f"{n}\n" for n in range(10)))
    read = lambda count: kcat(
        server, "-G", "g", "-q", "-c", str(count), "-X", "auto.offset.reset=earliest", "t"
    ).split()
    assert read(4) == ["0", "1", "2", "3"]
    assert read(6) == ["4", "5", "6", "7", "8", "9"]


def test_metadata_names_the_address_that_was_used(server):
    kcat(server, "-P", "-t", "t", stdin="a\n")
    listing = kcat(server, "-L")
    assert f"at {server.kafka}" in listing
    assert 'topic "t" with 1 partitions' in listing


def test_a_record_that_is_too_large_is_refused_and_the_rest_goes_on(server):
    options = ["-X", "message.max.bytes=20000000"]
    refused = kcat(server, "-P", "-t", "t", *options, stdin="x" * 3_000_000 + "\n", check=False)
    assert "too large" in refused.lower(), refused
    kcat(server, "-P", "-t", "t", stdin="small\n")
    assert kcat(server, "-C", "-t", "t", "-e", "-q") == "small\n"


def test_transactions_are_refused_at_once(server):
    refused = subprocess.run(
        ["kcat", "-b", server.kafka, "-P", "-t", "t", "-X", "transactional.id=pay"],
        input="a\n",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.returncode != 0
    assert "authoriz" in refused.stderr.lower(), refused.stderr
