"""Why a request is refused: what the library says, in the words of requests, and of which field."""

from __future__ import annotations

import re

from calotype.errors import CalotypeError
from calotype.serving.engine.open import plan_request
from calotype.serving.engine.shelf import Shelf
from calotype.serving.engine.tasks import Given
from calotype.serving.job import JobRequest

_OPTION = re.compile(r"--([a-z][a-z-]*)")
_SAID = ("kind", "n", "seed", "format", "compression", "exact")  # no plan depends on them alone


def refusal(
    shelf: Shelf, request: JobRequest, given: Given | None, error: CalotypeError
) -> dict[str, str | None]:
    """What is wrong with a request, and the field without which it would be right, if one is."""
    message = _OPTION.sub(lambda found: found[1].replace("-", "_"), str(error))
    for name in sorted(request.model_fields_set - set(_SAID)):
        field = JobRequest.model_fields[name]
        default = field.get_default(call_default_factory=True)
        try:
            plan_request(shelf, request.model_copy(update={name: default}), given)
        except CalotypeError:
            continue
        return {"message": message, "param": field.alias or name}
    wanting = "mask" if request.kind == "inpaint" and given is not None else "source"
    return {"message": message, "param": wanting if request.needs_source else None}
