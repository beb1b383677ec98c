"""What the hub keeps of a job: its images, their states, and what has happened so far."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from calotype.serving.job import Format, JobRequest

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
Previews = Literal["none", "steps", "partial"]
LAST_EVENTS = ("done", "failed", "cancelled")
_OPEN = ("queued", "running")


class Source(Protocol):
    """An image to be edited, checked and turned upright: what `uploads` makes."""

    @property
    def sha256(self) -> str:
        """Of the pixels as they are here, in hexadecimal."""

    @property
    def width(self) -> int:
        """In pixels."""

    @property
    def height(self) -> int:
        """In pixels."""

    @property
    def rgba(self) -> bytes:
        """Of all pixels: height * width * 4 bytes."""


@dataclass(frozen=True)
class Mask:
    """Where a source is to change.

    Attributes:
        sha256: of the file that says it, in hexadecimal.
        width: in pixels, as the source's.
        height: in pixels, as the source's.
        values: height * width bytes; 255 = change here.
    """

    sha256: str
    width: int
    height: int
    values: bytes = field(repr=False)


@dataclass(frozen=True)
class Owner:
    """Whose a job is.

    Attributes:
        key_name: of the key it came with; None = no key is needed.
        address: it came from.
    """

    key_name: str | None
    address: str

    @property
    def client(self) -> str:
        """Whose turn it is in the queue: the key's, else the address's."""
        return f"address {self.address}" if self.key_name is None else f"key {self.key_name}"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """All that an API says about a job.

    Attributes:
        request: what is to be made.
        owner: for whom.
        api: which API it came by: "openai", "sdapi" or "native".
        request_id: of the HTTP request.
        source: the image to be edited.
        mask: where it is to change.
        previews: none, at every step, or at OpenAI's three moments.
        preview_size: width and height of "partial" previews; None = the image's.
        preview_side: longer side of "steps" previews at most, and of "partial" ones if it is given.
        preview_format: of their files.
        idempotency_key: the same key again joins the job instead of making another.
        outlives: the job goes on when nobody listens any more; with a key it always does.
        fetched_later: its images are asked for by id, when its connection has closed.
        is_retry: a client asks again by itself: join its identical job, if that is not over.
    """

    request: JobRequest
    owner: Owner
    api: str
    request_id: str = ""
    source: Source | None = None
    mask: Mask | None = None
    previews: Previews = "none"
    preview_size: tuple[int, int] | None = None
    preview_side: int | None = None
    preview_format: Format = "webp"
    idempotency_key: str | None = None
    outlives: bool = False
    fetched_later: bool = False
    is_retry: bool = False


def fingerprint(submission: Submission) -> str:
    """What two requests have in common that are the same."""
    source, mask = submission.source, submission.mask
    parts = [
        submission.api,
        submission.request.model_dump(mode="json"),
        None if source is None else source.sha256,
        None if mask is None else hashlib.sha256(mask.values).hexdigest(),  # maybe inverted
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Attributes:
        number: rises by job; a client that comes back says the last it has seen.
        kind: queued, started, step, preview, image, done, failed or cancelled.
        data: JSON.
        blob: the encoded file of a preview or an image.
    """

    number: int
    kind: str
    data: dict[str, Any]
    blob: bytes | None = field(default=None, repr=False)


@dataclass(eq=False)
class JobImage:
    """One image of a job: the unit that waits, is computed and is kept.

    Attributes:
        id: random; of the file, too.
        index: in its job.
        seed: its own.
        state: how far it is.
        format: of the file.
        data: the file, as long as the job is in memory and there is room.
        kept: whether the store has it.
        width: in pixels; 0 = not known yet.
        height: in pixels; 0 = not known yet.
        recipe: how it was made.
        error: why it failed, and of what kind: usage, memory or internal.
        deaths: of engines that held it.
        starts: how often its computing began, by earlier servers, too.
        fraction: of its calls that are done.
    """

    id: str
    index: int
    seed: int
    format: Format
    state: State = "queued"
    data: bytes | None = field(default=None, repr=False)
    kept: bool = False
    width: int = 0
    height: int = 0
    recipe: dict[str, Any] | None = field(default=None, repr=False)
    error: tuple[str, str] | None = None
    deaths: int = 0
    starts: int = 0
    fraction: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it still waits or is computed."""
        return self.state in _OPEN

    @property
    def facts(self) -> dict[str, Any]:
        """What an event says of it when it is done."""
        told = {"image": self.index, "id": self.id, "seed": self.seed, "format": self.format}
        return {**told, "width": self.width, "height": self.height}


@dataclass(eq=False)
class Job:
    """A request, its images, and what has happened to them.

    Attributes:
        id: 128 random bits, fit for URLs.
        submission: what was asked, by whom.
        images: in order of their seeds.
        plan: of one image, as the engine answered: size, stages, calls.
        created: seconds since 1970.
        started: when its first image began, by the clock of deadlines; None = not yet.
        ended: when it was over, since 1970; None = not yet.
        position: images before its next one; None = none waits.
        eta_seconds: until all its images are there; None = not known yet.
        warning: what the client is told before it begins; None = nothing.
        holders: connections that listen to it.
        body: hash of all that was asked: the same again is the same job.
    """

    id: str
    submission: Submission
    images: list[JobImage]
    plan: Mapping[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    position: int | None = None
    eta_seconds: float | None = None
    warning: str | None = None
    holders: int = 0
    body: str = ""
    events: dict[tuple[Any, ...], Event] = field(default_factory=dict, repr=False)
    changed: set[asyncio.Event] = field(default_factory=set, repr=False)
    last_number: int = 0

    @property
    def request(self) -> JobRequest:
        """What is to be made."""
        return self.submission.request

    @property
    def owner(self) -> Owner:
        """For whom."""
        return self.submission.owner

    @property
    def api(self) -> str:
        """Which API it came by."""
        return self.submission.api

    @property
    def outlives(self) -> bool:
        """Whether it goes on when nobody listens any more."""
        return self.submission.outlives or self.submission.idempotency_key is not None

    @property
    def state(self) -> State:
        """How far it is: as its images are."""
        states = [image.state for image in self.images]
        if "running" in states or ("queued" in states and any(s != "queued" for s in states)):
            return "running"
        order: tuple[State, ...] = ("queued", "failed", "interrupted", "cancelled")
        return next((state for state in order if state in states), "done")

    @property
    def is_over(self) -> bool:
        """Whether its last event has come."""
        return self.ended is not None

    def tell(self, kind: str, data: dict[str, Any], blob: bytes | None = None) -> None:
        """Add an event; those that it makes pointless are forgotten, so slow readers skip them."""
        self.last_number += 1
        key = self._key(kind, data)
        self.events.pop(key, None)  # the new one goes to the end
        self.events[key] = Event(self.last_number, kind, data, blob)
        for waiting in self.changed:
            waiting.set()

    @property
    def size(self) -> int:
        """Bytes of files that it holds in memory."""
        return sum(len(event.blob or b"") for event in self.events.values())

    def shed(self) -> None:
        """Let go of all files: previews, and images, which the store has or nobody has."""
        for image in self.images:
            image.data = None
        for key, event in list(self.events.items()):
            if event.kind == "preview":
                del self.events[key]
            elif event.blob is not None:
                self.events[key] = replace(event, blob=None)

    def _key(self, kind: str, data: dict[str, Any]) -> tuple[Any, ...]:
        if kind == "preview" and self.submission.previews == "partial":
            return kind, data["image"], data["index"]
        return kind, data.get("image")


class Progress(Protocol):
    """Who is told how images fare."""

    def on_start(self, job: Job, image: JobImage) -> None:
        """An engine gets it."""

    def on_end(self, job: Job, image: JobImage, data: bytes | None) -> None:
        """It is over: with its file, or with a state that says why there is none."""
