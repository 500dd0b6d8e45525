(made) => {
  const results = document.getElementById("ELEM_ID")?.closest(".results");
  if (!made || !results?.offsetParent || !window.matchMedia("(max-width: 767px)").matches) return;
  const { top } = results.getBoundingClientRect();
  if (top >= 0 && top <= window.innerHeight / 3) return;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  results.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}
