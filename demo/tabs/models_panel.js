// Opens and closes the lists of models, which are closed at first on a phone; gr.HTML gives `element`.

const button = element.querySelector("button");

button.addEventListener("click", () => {
  const open = element.closest(".models").classList.toggle("open");
  button.setAttribute("aria-expanded", String(open));
});
