"""The door of the emulated cloud: counts calls, strikes them with faults, remembers client tokens, and has each
answered by moto or by what stands in for it."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from moto.core.responses import BaseResponse
from moto.core.utils import camelcase_to_underscores
from moto.moto_server.werkzeug_app import BackendRequest, DomainDispatcherApplication, create_backend_app
from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app

from starling.infra.region.calls import Answer, Call, Refused, check_filters, error_answer, read_call
from starling.infra.region.faults import MESSAGES, Faults
from starling.infra.region.tokens import ClientTokens

Handler = Callable[[], BaseResponse]


class Gateway:
    """A WSGI application. One call at a time: moto's state is not made for threads."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        lock: threading.RLock,
        faults: Faults,
        now: Callable[[], float],
        afterwards: Callable[[Call], None],
    ) -> None:
        """`handlers` answer the calls of a service that they define themselves (not their base classes of moto's);
        `afterwards` is called after every call that was done."""
        self.calls: Counter[str] = Counter()
        self.tokens = ClientTokens()
        self._handlers = {service: (make, _own_actions(make())) for service, make in handlers.items()}
        self._lock = lock
        self._faults = faults
        self._now = now
        self._afterwards = afterwards
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        call = read_call(environ)
        with self._lock:
            answer = self._answer(call, environ)
        headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
        start_response(f"{answer.status} {_REASONS.get(answer.status, 'Error')}", headers)
        return [answer.body]

    def _answer(self, call: Call, environ: dict[str, Any]) -> Answer:
        self.calls[call.action] += 1
        fault = self._faults.strike(call.action, self._now())
        if fault is not None and not fault.after:
            return error_answer(call, fault.code, fault.message or MESSAGES.get(fault.code, fault.code))
        try:
            check_filters(call)
            answer = self.tokens.recall(call) or self._do(call, environ)
        except Refused as refused:
            return error_answer(call, refused.code, refused.message)
        except NotImplementedError as error:
            return error_answer(call, "InvalidAction", f"{call.action} is not emulated like this: {error}")
        if call.service == "ec2" and answer.status == 403 and b"AccessDenied" in answer.body:
            # moto denies everywhere with IAM's own code.
            return error_answer(call, "UnauthorizedOperation", "You are not authorized to perform this operation.")
        if call.is_json and answer.status == 403 and (denied := _DENIED.search(answer.body)) is not None:
            # moto denies in XML, whatever the service speaks.
            return error_answer(call, "AccessDeniedException", denied[1].decode())
        self.tokens.keep(call, answer)
        self._afterwards(call)
        return answer if fault is None else error_answer(call, fault.code, fault.message or fault.code)

    def _do(self, call: Call, environ: dict[str, Any]) -> Answer:
        make, actions = self._handlers.get(call.service, (None, frozenset()))
        if make is not None and camelcase_to_underscores(call.action) in actions:
            request = BackendRequest(environ)
            status, headers, body = make()._dispatch(request)
            plain = tuple((str(name), str(value)) for name, value in headers.items() if name != "status")
            return Answer(status=int(status), headers=plain, body=body.encode() if isinstance(body, str) else body)
        chunks, text, told = run_wsgi_app(self._moto, environ, buffered=True)
        return Answer(status=int(text.split()[0]), headers=_pairs(told), body=b"".join(chunks))


_DENIED = re.compile(rb"<Message>(User: [^<]* is not authorized to perform: [^<]*)</Message>")
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 500: "Server Error"}


def _own_actions(handler: BaseResponse) -> frozenset[str]:
    return frozenset(name for name in vars(type(handler)) if not name.startswith("_"))


def _pairs(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in headers.items())
