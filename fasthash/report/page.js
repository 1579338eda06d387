// The radius slider and the class filter. Everything is in the page already; this hides, shows and counts.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("radius");
  const filter = document.getElementById("class");
  const cards = [...document.querySelectorAll(".card")];
  const dots = [...document.querySelectorAll("svg.map .dot")];
  const number = (value) => value.toFixed(3);

  function scores(at) {
    const chosen = filter ? filter.value : "";
    const curves = chosen === "" ? data.all : data.classes[chosen];
    if (!curves) return "";
    const whose = chosen === "" ? "queries measured" : "queries measured of this class";
    const means = `precision ${number(curves.precision[at])}, recall ${number(curves.recall[at])}`;
    return `${means} (mean of the ${curves.queries} ${whose})`;
  }

  function update() {
    const at = Number(slider.value);
    const radius = data.radii[at];
    const chosen = filter ? filter.value : "";
    let queries = 0, within = 0, right = 0;
    for (const card of cards) {
      card.hidden = chosen !== "" && card.dataset.class !== chosen;
      let near = 0, good = 0;
      for (const result of card.querySelectorAll(".result")) {
        result.hidden = Number(result.dataset.distance) > radius;
        near += !result.hidden;
        good += !result.hidden && result.classList.contains("right");
      }
      card.querySelector(".none").hidden = near > 0;
      if (card.hidden || card.closest("#worst")) continue; // the worst queries may be there twice
      queries += 1;
      within += near;
      right += good;
    }
    for (const dot of dots) dot.classList.toggle("faded", chosen !== "" && dot.dataset.class !== chosen);
    for (const line of document.querySelectorAll(".marker[data-from]")) {
      const x = Number(line.dataset.from) + Number(line.dataset.each) * radius;
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
    const told = data.all ? `, ${right} of them right` : "";
    slider.setAttribute("aria-valuetext", `radius ${radius}`);
    document.getElementById("radius-value").textContent = radius;
    document.getElementById("shown").textContent = `${queries} queries, ${within} results within the radius${told}`;
    document.getElementById("scores").textContent = scores(at);
  }

  slider.addEventListener("input", update);
  if (filter) filter.addEventListener("change", update);
  document.getElementById("controls").hidden = false;
  update();
})();
