// Closes the note on the missing Hub; gr.HTML gives `element`.

element.addEventListener("click", (event) => {
  if (event.target.closest(".offline button")) event.target.closest(".offline").remove();
});
