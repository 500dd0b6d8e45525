// Tells Python which example was chosen; gr.HTML gives `element` and `trigger`.

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-index]");
  if (button) trigger("pick", { index: Number(button.dataset.index) });
});
