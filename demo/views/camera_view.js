// Grabs the camera's frames, sends them to the model one at a time, and shows the answers. The next frame is grabbed when
// the answer to the last one is drawn, so frames are dropped here, and nothing ever waits in a line. Runs once for the
// component, after view_parts.js; gr.HTML gives `element`, `props`, `server`, `trigger` and `watch`.

const root = find(".lc"), video = find(".lc-video"), canvas = find(".lc-canvas");
const still = document.createElement("canvas"); // the frame that is sent
const JPEG_QUALITY = 0.85, RATE_MS = 3000, WORDS_MS = 250, PAUSE_MS = 200, FORGOTTEN_MS = 1000, MOST_FAILURES = 3, NEWS_MS = 30000;
const WISHED = { audio: false, video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } } };

const DENIED = "The browser does not let this page use the camera. Allow it (the camera sign in or beside the address bar), then press Start camera.";
const ABSENT = "No camera was found. Plug one in, then press Start camera.";
const TAKEN = "The camera is there, but gives no picture: another program may be using it. Close that program, then press Start camera.";
const UNPLUGGED = "The camera was unplugged, or its permission taken back. Plug it in or allow it again, then press Start camera.";
const INSECURE = "Browsers hand out cameras only on secure pages. Open this page by https://, or by http://localhost on the machine that serves it.";
const SILENT = "The server does not answer. Look whether it still runs and is reachable, then press Start camera.";
const NO_NEWS = "The server has not begun within " + NEWS_MS / 1000 + " seconds: it may be busy with other visitors. Wait a moment, then press Start camera.";
const WHY = {
  NotAllowedError: DENIED, SecurityError: DENIED, NotFoundError: ABSENT, OverconstrainedError: ABSENT,
  NotReadableError: TAKEN, AbortError: TAKEN,
};
const STATES = {
  idle: "The camera is off.",
  asking: "Waiting for the browser to hand out the camera…",
  loading: "The camera is on; the model is loading…",
  running: "The camera is on.",
};

// `turn` counts starts and stops: whoever waited for something looks whether it is still theirs. `seen` counts the frames
// that the camera gave, `grabbed` is what that number was at the last frame that was taken.
const live = { turn: 0, stream: null, run: null, maxSide: 640, looping: false, seen: 0, grabbed: 0, wake: null, patience: 0 };
const counts = { shown: 0, dropped: 0, recent: [], toldAt: 0 };

// ---- starting and stopping --------------------------------------------------------------------------------------

function enter(state) {
  root.dataset.state = state;
  find(".lc-state").textContent = STATES[state];
  find(".lc-start").disabled = state !== "idle";
  find(".lc-stop").disabled = state === "idle";
}

function complain(words) {
  if (!words) return find(".lc-message").replaceChildren();
  const box = document.createElement("div");
  box.className = "notice error";
  box.setAttribute("role", "alert");
  box.append(textIn("b", words));
  find(".lc-message").replaceChildren(box);
}

const release = (stream) => stream.getTracks().forEach((track) => track.stop());

async function start() {
  const turn = (live.turn += 1);
  complain("");
  if (!navigator.mediaDevices?.getUserMedia) return complain(INSECURE);
  enter("asking");
  let stream = null;
  try {
    stream = await navigator.mediaDevices.getUserMedia(WISHED);
    if (turn !== live.turn) return release(stream);
    live.stream = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => { if (live.stream === stream) stop(UNPLUGGED); });
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (turn === live.turn) stop(WHY[error.name] ?? "The camera cannot be started (" + error.name + "). Press Start camera to try again.");
    return;
  }
  if (turn !== live.turn) return;
  countFrames(turn);
  askForRun();
}

function askForRun() {
  enter("loading");
  expectNews();
  trigger("open_camera");
}

function expectNews() { // while the model is loading; a full queue, for one, sends none
  clearTimeout(live.patience);
  live.patience = setTimeout(() => { if (root.dataset.state === "loading") stop(NO_NEWS); }, NEWS_MS);
}

function stop(words) {
  live.turn += 1;
  if (live.stream) release(live.stream);
  Object.assign(live, { stream: null, run: null });
  video.srcObject = null;
  live.wake?.();
  complain(words);
  enter("idle");
  trigger("close_camera");
}

function receive() { // the server opened a run, or refused to
  const value = props.value;
  if (!value) return;
  if (!live.stream) {
    if (value.run) trigger("close_camera"); // stopped in the meantime
  } else if (value.refused) {
    stop(value.refused);
  } else if (!value.run) {
    expectNews(); // the model is on its way
  } else {
    Object.assign(live, { run: value.run, maxSide: value.maxSide });
    if (root.dataset.state === "loading") loop(live.turn);
  }
}

// ---- frames -----------------------------------------------------------------------------------------------------

const inView = () => canvas.closest(".lc").offsetParent !== null && !document.hidden;

function countFrames(turn) {
  Object.assign(live, { seen: 0, grabbed: 0 });
  const next = video.requestVideoFrameCallback
    ? (callback) => video.requestVideoFrameCallback(callback) : (callback) => requestAnimationFrame(callback);
  let base = null, shownAt = -1;
  const tick = (now, about) => {
    if (turn !== live.turn) return;
    if (about) {
      base ??= about.presentedFrames - 1;
      live.seen = about.presentedFrames - base;
    } else if (video.currentTime !== shownAt) {
      shownAt = video.currentTime;
      live.seen += 1;
    }
    if (!inView()) live.grabbed = live.seen; // pauses: these frames are not missed
    else if (live.seen > live.grabbed) live.wake?.();
    next(tick);
  };
  next(tick);
}

async function newFrame() {
  while (live.stream && !(inView() && live.seen > live.grabbed)) {
    await new Promise((resolve) => { live.wake = resolve; });
  }
  live.wake = null;
}

function grab() { // the camera's frame as JPEG in base64
  const scale = Math.min(1, live.maxSide / Math.max(video.videoWidth, video.videoHeight));
  const width = Math.round(video.videoWidth * scale), height = Math.round(video.videoHeight * scale);
  if (still.width !== width || still.height !== height) Object.assign(still, { width, height });
  still.getContext("2d").drawImage(video, 0, 0, width, height);
  counts.dropped += Math.max(0, live.seen - live.grabbed - 1);
  live.grabbed = live.seen;
  return still.toDataURL("image/jpeg", JPEG_QUALITY).split(",")[1]; // toBlob waits for an idle moment of the browser
}

async function loop(turn) {
  enter("running");
  Object.assign(counts, { shown: 0, dropped: 0, recent: [], toldAt: 0 });
  root.classList.remove("filled");
  put(".lc-frames", "0");
  let failures = 0;
  while (turn === live.turn) {
    await newFrame();
    if (turn !== live.turn) return;
    const grabbedAt = performance.now(), run = live.run;
    const answer = await server.camera_frame({ run, jpeg: grab() });
    if (turn !== live.turn) return;
    failures = answer ? 0 : failures + 1;
    if (failures === MOST_FAILURES) return stop(SILENT);
    if (answer?.error) return stop(answer.error);
    if (answer?.jpeg) {
      await show(answer, grabbedAt, turn);
      continue;
    }
    counts.dropped += 1; // sent, but not answered
    await new Promise((resolve) => setTimeout(resolve, answer?.gone ? FORGOTTEN_MS : PAUSE_MS));
    if (turn === live.turn && answer?.gone && run === live.run) { // forgotten after a long pause, and not replaced
      return askForRun();
    }
  }
}

async function show(answer, grabbedAt, turn) {
  const picture = await createImageBitmap(new Blob([bytes(answer.jpeg)], { type: "image/jpeg" }));
  if (turn !== live.turn) return;
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    Object.assign(canvas, { width: picture.width, height: picture.height });
  }
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.close();
  const now = performance.now();
  counts.shown += 1;
  counts.recent.push({ at: now, latency: now - grabbedAt, model: answer.modelMs, server: answer.serverMs });
  while (counts.recent.length > 2 && now - counts.recent[0].at > RATE_MS) counts.recent.shift();
  if (!root.classList.contains("filled") || now - counts.toldAt > WORDS_MS) tell(answer, now);
}

// ---- figures ----------------------------------------------------------------------------------------------------

const put = (selector, words) => { find(selector).textContent = words; };
const milliseconds = (value) => value.toFixed(value < 10 ? 1 : 0) + " ms";
const count = (macs) => (macs < 1e9 ? (macs / 1e6).toPrecision(3) + " million" : (macs / 1e9).toPrecision(3) + " billion");

function median(values) {
  const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function tell(answer, now) {
  counts.toldAt = now;
  const recent = counts.recent, first = recent[0].at;
  const rate = recent.length > 1 ? (1e3 * (recent.length - 1)) / (now - first) : null;
  root.classList.add("filled");
  canvas.setAttribute("aria-label", "The camera's picture with what " + answer.label + " says");
  put(".lc-rate", rate === null ? "–" : rate.toFixed(1));
  put(".lc-latency", milliseconds(median(recent.map((entry) => entry.latency))));
  put(".lc-model", milliseconds(median(recent.map((entry) => entry.model))));
  put(".lc-server", milliseconds(median(recent.map((entry) => entry.server))) + " on the server in all, " + answer.engine);
  put(".lc-frames", String(counts.shown));
  put(".lc-dropped", counts.dropped + " of the camera's " + (counts.shown + counts.dropped) + " dropped");
  put(".lc-macs", count(answer.macs));
  const full = answer.fullTokenMacs, where = answer.ofBackbone ? " in the backbone" : "";
  if (!full) put(".lc-full", answer.label + where);
  else if (full === answer.macs) put(".lc-full", answer.label + where + " keeps all tokens");
  else put(".lc-full", ((100 * answer.macs) / full).toFixed(0) + " % of " + count(full) + where + " with all tokens kept");
}

find(".lc-start").addEventListener("click", start);
find(".lc-stop").addEventListener("click", () => stop(""));
window.addEventListener("pagehide", () => { if (live.stream) release(live.stream); });
watch("value", receive);
