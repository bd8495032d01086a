"""The client of the tokenizer address, with its one-second time-outs and its null dereferences."""

import http.client
import json
import time
from urllib.parse import urlsplit

from signals import die

TIMEOUT_S = 1.0
RETRY_S = 1.0
TRIES = 10


class Tokenizer:
    """The simple protocol.

    What the real one does with an answer that is no JSON is not known of every call; here it is the worst.
    """

    def __init__(self, url, out):
        self.url = url
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._out = out

    def start(self):
        """The ids of begin and end; None if they are not told."""
        bodies = [self._demand("GET", self._path(f"/{name}_id")) for name in ("bos", "eos")]
        try:
            bos, eos = [int(json.loads(body)[name]) for body, name in zip(bodies, ("bos_id", "eos_id"), strict=True)]
        except (ValueError, LookupError, TypeError):
            return None
        self._out.put(f"bos_id: {bos}, eos_id: {eos}\n")
        return bos, eos

    def encode(self, line):
        """The ids of a line, given as the bytes that came in."""
        return self._ids("token_ids", self._encoded({"text": self._text(line)}))

    def decode(self, ids):
        """The text of ids; a failure is tried again once, then the text is empty."""
        for _ in range(2):
            status, body = self._call("POST", "/decode", self._body({"token_ids": ids}))
            try:
                if status == http.client.OK:
                    return str(json.loads(body)["text"])
            except (ValueError, LookupError, TypeError):
                pass  # No JSON is as bad as another status.
            self._out.log("E", "Decode", 0, f"decode failed, status: {status}, try again")
            time.sleep(RETRY_S)
        return ""

    def _path(self, path):
        return path

    def _body(self, fields):
        return fields

    def _text(self, line):
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            abort(f"[json.exception.type_error.316] invalid UTF-8 byte at index {error.start}", self._out)

    def _encoded(self, fields):
        try:
            return json.loads(self._demand("POST", "/encode", self._body(fields)))
        except ValueError:
            abort("[json.exception.parse_error.101] parse error", self._out)

    def _ids(self, key, answer):
        try:
            return [int(id_) for id_ in answer[key]]
        except (ValueError, LookupError, TypeError):
            abort("[json.exception.type_error.302] type must be array", self._out)

    def _demand(self, method, path, body=None):
        """The answer; none is dereferenced all the same."""
        status, text = self._call(method, path, body)
        if not status:
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
            return 0, b""
        finally:
            connection.close()


class UidTokenizer(Tokenizer):
    """The protocol of ax-context: the server remembers the conversation of every uid."""

    def __init__(self, url, out, machine):
        super().__init__(url, out)
        self._machine = machine
        self.last_reply = ""

    def start(self):
        for attempt in range(1, TRIES + 1):
            status, body = self._call("GET", "/get_uid")
            if status:
                break
            self._out.log("W", "Init", 0, f"connect failed {self.url}, try again in {attempt:2d}/{TRIES:2d}")
            self._out.flush()
            self._machine.nap(1)
        else:
            return None
        try:
            self._uid = str(json.loads(body)["uid"])
        except (ValueError, LookupError, TypeError):
            return None
        self._out.log("I", "Init", 0, f"uid: {self._uid}")
        return super().start()

    def encode(self, line):
        """All ids of the conversation, and the new ones."""
        fields = {"text": self._text(line), "img_prompt": False}
        if self.last_reply:
            fields["last_reply"] = self.last_reply
        answer = self._encoded(fields)
        return self._ids("token_ids", answer), self._ids("diff", answer)

    def reset(self):
        self.last_reply = ""
        self._demand("GET", self._path("/reset"))

    def _path(self, path):
        return f"{path}?uid={self._uid}"

    def _body(self, fields):
        return {"uid": self._uid, **fields}


def abort(what, out):
    """An exception nobody catches; what stdout's buffer holds is lost."""
    out.raw(f"terminate called after throwing an instance of 'nlohmann::detail'\n  what():  {what}\n".encode(), 2)
    die("ABRT")
