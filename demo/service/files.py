"""Files of visitors: none is kept for longer than it is of use."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from demo.page.gradio_private import upload_folder
from demo.service.folder import LOCK

OLD_S = 2 * 3600.0  # Gradio's own schedule, which knows most files, removes them after one hour
EMPTY_S = 600.0
LINK_DAYS_S, MAX_LINKS = 24 * 3600.0, 50


def remove_old_files(needed: Collection[str] = ()) -> None:
    """Remove what nobody needs any more from the folder of uploads: old files, empty folders, deep links after a day
    or beyond a number of them.

    Args:
        needed: paths of files that stay, however old: copies are as old as what they are copies of.
    """
    folder, now = upload_folder(), time.time()
    links = sorted(folder.glob("deep_links/*/state.json"), key=_changed, reverse=True)
    outdated = [link for number, link in enumerate(links) if number >= MAX_LINKS or now - _changed(link) > LINK_DAYS_S]
    kept = {*links, *map(Path, needed), folder / LOCK} - set(outdated)
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone in the meantime, or a folder that has something in it
            if path.is_dir():
                if now - _changed(path) > EMPTY_S:
                    path.rmdir()
            elif path in outdated or (path not in kept and now - _changed(path) > OLD_S):
                path.unlink()


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
