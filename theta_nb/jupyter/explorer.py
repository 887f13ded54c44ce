"""What explorers have in common: options, messages, threads, closing, and what a saved notebook shows."""

from __future__ import annotations

import base64
import difflib
import io
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from theta_nb.errors import ThetaError
from theta_nb.jupyter.answers import Answer, Request, messages, requests_of
from theta_nb.jupyter.static import stylesheet
from theta_nb.jupyter.worker import Stop, Stopped, Worker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explorer"]

_STAND_IN = """<style>
.theta-stand-in{animation:theta-late 1ms 1s both}
.theta-stand-in[hidden],
.jp-OutputArea-child:has(.theta-stand-in):has(+.jp-OutputArea-child>.jp-OutputArea-output>.lm-Widget),
.jp-OutputArea-child:has(.theta-stand-in)+.jp-OutputArea-child>.jp-OutputArea-output:not(:has(*)){display:none}
.theta-stand-in>img{max-width:100%;display:block}
@keyframes theta-late{from{max-height:0;overflow:hidden;opacity:0}}
</style>"""
"""In JupyterLab the stand-in gives way to its widget, and takes the place of the message that there is none.

It comes a second late, so that it does not flash up before a widget that is on its way.
"""

_STEP = 0.1
"""Seconds between two notes of progress; each is a message to the browser."""


class Explorer(anywidget.AnyWidget):
    """A widget that answers what its view asks for, in threads of its own.

    Parameters
    ----------
    options
        Traits by name; those of the subclass are in ``options()``.

    Raises
    ------
    TypeError
        If there is no such option.

    Notes
    -----
    Python holds what Python must know (the traits), the browser everything else. The view asks for details in small
    messages; a newer request replaces an older one. :meth:`close` ends the threads and lets go of the data.
    """

    _css = stylesheet("explorer")
    _module = traitlets.Unicode(help="The ES module that draws, handed to a page once.").tag(sync=True)
    _stand_in = traitlets.Unicode(help="Id of the element that a saved notebook shows instead.").tag(sync=True)
    _worker: Worker | None = None
    _displayed = False
    _threads = 2
    """Pieces of work that are done at once."""

    def __init__(self, **options: Any) -> None:
        _check(type(self), options)
        self._worker = Worker(self._threads)
        self._shared_layout = "layout" in options
        super().__init__(**options)
        self._stand_in = f"theta-{self.model_id}"
        self.on_msg(Explorer._asked)

    @classmethod
    def options(cls) -> dict[str, str]:
        """What can be set, by name: traits that the view and Python share."""
        return {name: trait.help for name, trait in cls.class_traits(sync=True).items() if trait.metadata.get("option")}

    def close(self) -> None:
        """Take the widget off the page, end its threads, and let go of what it shows."""
        if self._worker is not None:  # Python also closes what was refused before it had one
            self._worker.close()
            self._forget()
            self._empty()
            if not self._shared_layout:  # a widget of its own, which nobody else would close
                self.layout.close()
        super().close()

    def _empty(self) -> None:
        """Empty what is shared: a page keeps the state of closed widgets for as long as it is open."""
        if self.comm is None:
            return
        with self.hold_sync():
            for name, trait in type(self).class_traits(sync=True).items():
                if name in ("_css", "_module") or isinstance(trait, traitlets.Bytes):
                    self.set_trait(name, type(getattr(self, name))())
        self.send_state("_module")  # of a model the page keeps the last state as well as the present one

    def _forget(self) -> None:
        """Let go of the data."""
        raise NotImplementedError

    # --- asked and answered -------------------------------------------------------------------------------------------

    def _answer(self, request: Request, stop: Stop, progress: Callable[[int, int], None]) -> Answer:
        """What is asked for; subclasses say."""
        raise NotImplementedError

    def _asked(self, content: object, buffers: object) -> None:
        """Take requests; in the kernel's own thread they are parsed, and answered only if that takes a moment."""
        if self._worker is None:
            return
        requests, cancelled = requests_of(content)
        for channel in cancelled:
            self._worker.cancel(channel)
        for request in requests:
            if self._answered_at_once(request):
                continue
            self._worker.submit(request.channel, lambda stop, request=request: self._work(request, stop))  # type: ignore[misc]

    def _answered_at_once(self, request: Request) -> bool:
        """Whether a request has been answered right here, in the kernel's own thread; subclasses say which may be."""
        return False

    def _work(self, request: Request, stop: Stop) -> None:
        try:
            answer = self._answer(request, stop, self._progress_of(request, stop))
        except Stopped:
            raise
        except ThetaError as error:
            self._send_error(request, str(error), stop)
        except Exception as error:  # noqa: BLE001 - nobody sees a thread's traceback; the view shows what went wrong
            self._send_error(request, f"{type(error).__name__}: {error}", stop)
        else:
            for content, buffers in messages(request, answer):
                stop()
                self.send(content, buffers)

    def _send_error(self, request: Request, text: str, stop: Stop) -> None:
        stop()
        self.send({"id": request.id, "error": text})

    def _progress_of(self, request: Request, stop: Stop) -> Callable[[int, int], None]:
        """A callback that stops the work when nobody waits for it, and says a few times a second how far it is."""
        said = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal said
            stop()
            now = time.monotonic()
            if now - said >= _STEP:
                said = now
                self.send({"id": request.id, "progress": [done, total]})

        return progress

    # --- without a kernel ---------------------------------------------------------------------------------------------

    def _static(self) -> Mapping[str, Any]:
        """What it shows where there is no kernel, by MIME type."""
        raise NotImplementedError

    def _picture(self) -> Figure | None:
        """The same as a picture."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget, and beside it what pages without a kernel show: HTML, a picture, text."""
        made = super()._repr_mimebundle_(**options)
        if made is None:
            return None
        bundle, metadata = made
        return {**bundle, **self._still()}, metadata

    def _ipython_display_(self) -> None:
        """Show what needs no kernel, and then the widget, which takes its place.

        A front end that knows widgets shows nothing else of the same output, not even where the widget is gone: a
        saved notebook would read "model not found". So there are two outputs, and each of them hides the other one.
        """
        from IPython.core.display_functions import publish_display_data

        still = self._still()
        still.pop("image/png", None)  # the HTML has it
        made = super()._repr_mimebundle_()
        publish_display_data(still, transient={"display_id": self._stand_in})  # type: ignore[no-untyped-call]
        self._displayed = True
        if made is not None:
            widget = {kind: value for kind, value in made[0].items() if not kind.startswith("text/")}
            publish_display_data(widget, made[1])  # type: ignore[no-untyped-call]

    def _renew_still(self, stop: Stop) -> None:
        """Have what a saved notebook shows be of what is known now."""
        from IPython.core.display_functions import publish_display_data

        if not self._displayed:
            return
        still = self._still()
        stop()
        still.pop("image/png", None)
        publish_display_data(still, transient={"display_id": self._stand_in}, update=True)  # type: ignore[no-untyped-call]

    def _still(self) -> dict[str, Any]:
        """What it shows where there is no kernel: HTML, a picture, text."""
        found = self._static()
        picture = self._picture()
        html = found["text/html"]
        bundle: dict[str, Any] = {"text/plain": found["text/plain"]}
        if picture is not None:
            bundle["image/png"] = base64.b64encode(_png(picture)).decode("ascii")
            html = f"<img alt='the same as a picture' src='data:image/png;base64,{bundle['image/png']}'>{html}"
        html += f"<p><small>This is a still of a {type(self).__name__}; run its cell to explore.</small></p>"
        html = f"<div class='theta-stand-in' id='{self._stand_in}'>{_STAND_IN}{html}</div>"
        # A browser keeps a text of one-byte characters in half the memory, and undoing keeps every output.
        return {**bundle, "text/html": html.encode("ascii", "xmlcharrefreplace").decode("ascii")}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _png(picture: Figure) -> bytes:
    """A picture in 256 colours, a fifth of the bytes: a page keeps every still that it ever showed, to undo."""
    from PIL import Image  # matplotlib needs it

    whole, small = io.BytesIO(), io.BytesIO()
    picture.savefig(whole, format="png", dpi=80)
    with Image.open(whole) as image:
        image.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return small.getvalue()


def _check(cls: type[Explorer], options: Mapping[str, Any]) -> None:
    """Refuse options that nobody knows, with the closest one that exists."""
    known = {*cls.options(), "layout"}
    internal = {name for name in options if name.startswith("_")}
    for name in options.keys() - known - internal:
        close = difflib.get_close_matches(name, sorted(known), 1)
        meant = f"; did you mean {close[0]!r}?" if close else "."
        raise TypeError(f"{cls.__name__} has no option {name!r}{meant} Options are {', '.join(sorted(known))}.")
