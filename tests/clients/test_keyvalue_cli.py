"""redis-cli, unmodified, in both versions of the protocol."""

import subprocess

import pytest


def cli(server, *arguments: str, text: str | None = None) -> str:
    host, port = server.address("keyvalue")
    done = subprocess.run(
        ["redis-cli", "-h", host, "-p", str(port), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        input=text,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("version", ["-2", "-3"])
def test_redis_cli(server, version):
    server.query("CREATE TABLE cities (country text, city text, people bigint, PRIMARY KEY (country, city))")
    server.query("INSERT INTO cities VALUES ('in', 'Pune', 7), ('in', 'a:b', NULL)")
    server.query("SELECT * FROM cities")
    row = cli(server, version, "HGETALL", "cities:in:Pune")
    assert row.split() == ["country", "in", "city", "Pune", "people", "7"]
    assert cli(server, version, "HKEYS", r"cities:in:a\:b").split() == ["country", "city"]
    assert sorted(cli(server, version, "--scan", "--pattern", "cities:*").split()) == [
        "cities:in:Pune",
        r"cities:in:a\:b",
    ]
    assert cli(server, version, "TYPE", "cities:in:Pune") == "hash"
    assert cli(server, version, "JSON.GET", "cities:in:Pune") == '{"country":"in","city":"Pune","people":7}'
    assert cli(server, version, "DBSIZE") == "2"
    assert "WRONGTYPE" in cli(server, version, "GET", "cities:in:Pune")
    assert 'topic "cities"' in cli(server, version, "HSET", "cities:in:Pune", "people", "8")
    # Commands typed line by line, as at its prompt.
    answers = cli(server, version, text='HGET "cities:in:Pune" people\nMULTI\nEXISTS cities:x:y\nEXEC\n')
    assert answers.split() == ["7", "OK", "QUEUED", "0"]
    assert "# Server" in cli(server, version, "INFO", "server")
    assert "hgetall" in cli(server, version, "COMMAND", "DOCS", "HGETALL")
