"""The client of the tokenizer address, with its one-second time-outs and its null dereferences."""

import http.client
import json
import time
from urllib.parse import urlsplit

from signals import die

TIMEOUT_S = 1.0
RETRY_S = 1.0


class Tokenizer:
    """The simple protocol."""

    def __init__(self, url, out):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._out = out

    def start(self):
        """The ids of begin and end; None if the tokenizer has them not."""
        ids = [self._demand("GET", f"/{name}_id") for name in ("bos", "eos")]
        try:
            bos, eos = [int(json.loads(body)[key]) for body, key in zip(ids, ("bos_id", "eos_id"), strict=True)]
        except (ValueError, LookupError, TypeError):
            return None
        self._out.put(f"bos_id: {bos}, eos_id: {eos}\n")
        return bos, eos

    def encode(self, text):
        """The ids of the line, as bytes came from stdin."""
        try:
            line = text.decode()
        except UnicodeDecodeError:
            abort("[json.exception.type_error.316] invalid UTF-8 byte", self._out)
        body = self._demand("POST", "/encode", {"text": line})
        try:
            return [int(id_) for id_ in json.loads(body)["token_ids"]]
        except (ValueError, LookupError, TypeError):
            abort("[json.exception.parse_error.101] parse error", self._out)

    def decode(self, ids):
        """The text of ids; a failure is tried again once, then it is empty."""
        for _ in range(2):
            status, body = self._call("POST", "/decode", self._decode_body(ids))
            try:
                if status == http.client.OK:
                    return json.loads(body)["text"]
            except (ValueError, LookupError, TypeError):
                pass
            self._out.log("E", "Decode", 0, f"decode failed, status: {status}, try again")
            time.sleep(RETRY_S)
        return ""

    def _decode_body(self, ids):
        return {"token_ids": ids}

    def _demand(self, method, path, body=None):
        """No answer is dereferenced all the same."""
        status, text = self._call(method, path, body)
        if status is None:
            die("SEGV")
        return text

    def _call(self, method, path, body=None):
        headers = {"Accept": "*/*", "Connection": "close", "User-Agent": "cpp-httplib/0.15.3"}
        data = None
        if body is not None:
            data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None, b""
        finally:
            connection.close()


def abort(what, out):
    """What an exception nobody catches does; the buffer is lost."""
    out.raw(f"terminate called after throwing an instance of 'nlohmann::detail'\n  what():  {what}\n".encode(), 2)
    die("ABRT")
