// Puts a picker's heading before the names of its lists, so that no two lists on a tab are called the same; gr.HTML
// gives `element`.

const side = element.textContent.trim() + ": ", picker = element.closest(".picker");

function name() {
  for (const list of picker.querySelectorAll("input[aria-label]")) {
    const own = list.getAttribute("aria-label");
    if (!own.startsWith(side)) list.setAttribute("aria-label", side + own);
  }
}

name();
new MutationObserver(name).observe(picker, { subtree: true, childList: true, attributeFilter: ["aria-label"] });
