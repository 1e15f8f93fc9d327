// Without this script all panels are shown, one below the other.
for (const compare of document.querySelectorAll(".compare")) {
  const panels = [...compare.querySelectorAll(".panel")];
  const controls = compare.querySelector(".controls");
  const inputs = [...controls.querySelectorAll("input")];
  const output = controls.querySelector("output");
  const show = (chosen) => {
    panels.forEach((panel, index) => { panel.hidden = index !== chosen; });
    if (output) {
      output.textContent = panels[chosen].dataset.title;
      inputs[0].setAttribute("aria-valuetext", panels[chosen].dataset.title);
    }
  };
  for (const input of inputs) {
    input.addEventListener("input", () => show(Number(input.value)));
  }
  controls.hidden = false;
  // A browser may have kept what was chosen before the page was loaded again.
  const chosen = Math.max(0, inputs.findIndex((input) => input.checked));
  show(inputs[0].type === "range" ? Number(inputs[0].value) : chosen);
}
