"""A bucket: as much of S3's protocol as archives and their readers use, with mishaps on request."""

import hashlib
import http.server
import threading
import urllib.parse
from email.utils import formatdate
from xml.sax.saxutils import escape


class Bucket:
    """Objects in memory behind S3's REST API. Signatures are not looked at."""

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        # Answers that are lost after the request was carried out: of the next PUTs whose names end so.
        self.lose_answer_of: list[str] = []
        self.is_down = False
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def env(self) -> dict[str, str]:
        """What a server needs to find it."""
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(bucket):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status: int, body: bytes = b"", **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if "Content_Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def error(self, status: int, code: str):
                self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

            def dispatch(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if bucket.is_down:
                    return self.error(503, "ServiceUnavailable")
                url = urllib.parse.urlsplit(self.path)
                _, _, key = url.path.lstrip("/").partition("/")
                query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
                getattr(self, f"on_{self.command.lower()}")(urllib.parse.unquote(key), query, body)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = dispatch

            def on_put(self, key, query, body):
                with bucket.lock:
                    if self.headers.get("If-None-Match") == "*" and key in bucket.objects:
                        return self.error(412, "PreconditionFailed")
                    bucket.objects[key] = body
                    lost = next((end for end in bucket.lose_answer_of if key.endswith(end)), None)
                    if lost:
                        bucket.lose_answer_of.remove(lost)
                if lost:
                    return self.error(500, "InternalError")
                return self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

            def on_get(self, key, query, _):
                if not key:
                    return self.listing(query)
                body = bucket.objects.get(key)
                if body is None:
                    return self.error(404, "NoSuchKey")
                facts = {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "Last_Modified": formatdate(usegmt=True)}
                wanted = self.headers.get("Range")
                if self.command == "HEAD" or not wanted:
                    return self.answer(200, body, Content_Length=str(len(body)), **facts)
                first, last = wanted.removeprefix("bytes=").split("-")
                begin = int(first) if first else max(0, len(body) - int(last))
                end = min(int(last) + 1 if first and last else len(body), len(body))
                return self.answer(206, body[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{len(body)}", **facts)

            on_head = on_get

            def listing(self, query):
                prefix = query.get("prefix", "")
                with bucket.lock:
                    found = {key: len(body) for key, body in bucket.objects.items() if key.startswith(prefix)}
                contents = "".join(
                    f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                    for key, size in sorted(found.items())
                )
                self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode())

            def on_delete(self, key, query, _):
                with bucket.lock:
                    bucket.objects.pop(key, None)
                self.answer(204)

        return Handler
