// Takes a file for the input ELEM_ID by its upload icon, its drop zone, a drop or a paste, whether it holds one or not:
// Gradio's own empties a filled input and asks once more, and after a paste takes no drop. gr.HTML gives `element`,
// `trigger` and `upload`.

const box = () => document.getElementById("ELEM_ID");
const inside = (event) => box()?.contains(event.target);
const chooser = Object.assign(document.createElement("input"), { type: "file", accept: "ACCEPTED" });

function tell(words) {
  const told = document.createElement("div");
  told.className = "notice error";
  told.setAttribute("role", "alert");
  told.textContent = words;
  element.replaceChildren(...(words ? [told] : []));
}

async function take(file) {
  tell("");
  try {
    const { path } = await upload(file);
    trigger("pick", { path });
  } catch (error) {
    tell("This file cannot be sent: " + error.message);
  }
}

function only(event, act) {
  event.preventDefault();
  event.stopImmediatePropagation();
  act();
}

document.addEventListener("click", (event) => {
  if (inside(event) && event.target.closest('[aria-label="Upload file"], [aria-dropeffect]')) only(event, () => chooser.click());
}, true);
chooser.addEventListener("change", () => {
  const [file] = chooser.files;
  chooser.value = "";
  if (file) take(file);
});
document.addEventListener("dragover", (event) => { if (inside(event)) event.preventDefault(); }, true);
document.addEventListener("drop", (event) => {
  const file = event.dataTransfer?.files[0];
  if (!file || !inside(event)) return;
  event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
  only(event, () => take(file));
}, true);
// Of a file that is no picture, or of a kind that the browser does not know, nothing is shown.
for (const [kind, visibility] of [["error", "hidden"], ["load", ""]]) {
  document.addEventListener(kind, (event) => {
    if (event.target.tagName === "IMG" && inside(event)) event.target.style.visibility = visibility;
  }, true);
}
document.addEventListener("paste", (event) => {
  const file = event.clipboardData?.files[0];
  if (file && box()?.offsetParent) only(event, () => take(file));
});
