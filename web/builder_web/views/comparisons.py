"""Two builds beside each other."""

from starlette.requests import Request
from starlette.responses import Response

from builder_web.views import answers
from builder_web.views.finding import build_by


async def compare(request: Request) -> Response:
    """Answer with what differs between two builds."""
    left = await build_by(request, request.path_params["left"])
    right = await build_by(request, request.path_params["right"])
    return answers.json({"left": left.uuid, "right": right.uuid})
