"""What is kept of visitors, and for how long: their state, the results of their calls, their files."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime

from gradio.queueing import Event, Queue
from gradio.server_messages import ProcessCompletedMessage
from gradio.state_holder import SessionState, StateHolder

MAX_SESSIONS = 200  # of 0.25 to 0.65 MiB
CLOSED_S = 600.0  # a page that was closed may come back within that time
IDLE_S = 6 * 3600.0
HELD = "held open"  # in place of a call, for a stream of messages that stays open
HELD_S = 6.0  # after the last call
UNREAD_S = 10.0  # after which a call whose messages nobody reads is ended
ENDED = f"Nobody read the messages of this call for {UNREAD_S:.0f} s, so it was ended. Ask for its result right away."


class Sessions(StateHolder):
    """The states of visitors. Calls without a session share one state: nobody comes back to it, and making one takes
    10 ms."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self._queue = queue
        self._shared: SessionState | None = None

    def __getitem__(self, session_id: str) -> SessionState:
        """Return the state of a session; Gradio names the session of a call without one like the call."""
        if session_id not in self._queue.event_ids_to_events:
            return super().__getitem__(session_id)
        if self._shared is None:
            self._shared = SessionState(self.blocks)
        return self._shared

    def forget_old(self) -> None:
        """Drop the states of pages that were closed, or not used for long."""
        now = datetime.now()
        for session_id, used in list(self.time_last_used.items()):
            state = self.session_data.get(session_id)
            idle_s = (now - used).total_seconds()
            if state is None or idle_s > (CLOSED_S if state.is_closed else IDLE_S):
                self.delete_state(session_id)
                self.session_data.pop(session_id, None)
                self.time_last_used.pop(session_id, None)


class Readers:
    """Who reads the messages of which session, and ends calls whose messages nobody reads."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._reading: Counter[str] = Counter()
        self._left: dict[str, float] = {}
        self._idle: dict[str, float] = {}  # since when, sessions whose streams are held open

    def hold(self, session: str) -> None:
        """Keep the stream of a browser's messages open beyond its calls.

        Gradio ends a stream with its last call, and the browser opens another one for the next call, unless it has not
        noticed the end yet: then nobody ever reads the messages of a call that it sent meanwhile, and the page waits
        for it, and puts off all that follow.
        """
        self._queue.pending_event_ids_session.setdefault(session, set()).add(HELD)
        self._idle.pop(session, None)

    def release_idle(self) -> None:
        """Let the streams end that have been idle for ``HELD_S``."""
        now, pending = time.monotonic(), self._queue.pending_event_ids_session
        self._idle = {session: self._idle.get(session, now) for session, ids in pending.items() if ids == {HELD}}
        for session in [session for session, since in self._idle.items() if now - since > HELD_S]:
            del self._idle[session]
            if session in self._reading:
                over = ProcessCompletedMessage(event_id=HELD, output={}, success=True)
                self._queue.pending_messages_per_session[session].put_nowait(over)
            else:
                pending[session].discard(HELD)

    def begin(self, session: str) -> None:
        """Somebody reads."""
        self._reading[session] += 1

    def end(self, session: str) -> None:
        """Somebody reads no more."""
        self._reading[session] -= 1
        if self._reading[session] <= 0:
            del self._reading[session]
            self._left[session] = time.monotonic()
            self._queue.pending_event_ids_session.get(session, set()).discard(HELD)
            if not self._queue.pending_event_ids_session.get(session, True):
                self._forget(session)

    async def end_unread(self, late_s: float = 0.0) -> None:
        """End calls that nobody has read for ``UNREAD_S``: those that wait at once, long ones at their next step.

        Args:
            late_s: with all that the server does; whoever wants to read may wait as long.
        """
        now = time.monotonic()
        for event in list(self._queue.event_ids_to_events.values()):
            if event.alive and now - self._last_read(event) > UNREAD_S + late_s:
                self._queue.send_message(event, ProcessCompletedMessage(output={"error": ENDED}, success=False))
                await self._queue.clean_events(event_id=event._id)
        self._forget_unread(now)

    def _forget_unread(self, now: float) -> None:
        """Drop results that nobody came for, and what Gradio keeps of their sessions."""
        busy = {event.session_hash for event in self._queue.event_ids_to_events.values()} | set(self._reading)
        pending = self._queue.pending_event_ids_session
        self._left = {session: self._left.get(session, now) for session in {*pending, *self._left} - busy}
        for session, left in list(self._left.items()):
            if now - left > CLOSED_S:
                self._forget(session)
                del self._left[session]

    def _forget(self, session: str) -> None:
        self._queue.pending_event_ids_session.pop(session, None)
        self._queue.pending_messages_per_session.pop(session, None)

    def _last_read(self, event: Event) -> float:
        if event.session_hash in self._reading:
            return float("inf")
        return max(event.enqueue_time, self._left.get(event.session_hash, 0.0))
