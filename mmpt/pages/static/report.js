"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent), drawn = [...document.querySelectorAll(".chart")];
  let logarithmic = false;
  const own = (name) => { const probe = document.createElement("span"); probe.style.color = `var(--${name})`; document.body.append(probe); const found = getComputedStyle(probe).color; probe.remove(); return found; };
  function draw() {
    const text = own("text"), line = own("line");
    for (const box of drawn) {
      const chart = box.dataset.chart !== undefined ? data.charts[box.dataset.chart] : data.maps[box.dataset.map].pictures[box.dataset.picture];
      const isLines = chart.data.every((trace) => trace.type === "scatter"), layout = chart.layout;
      const axis = (told) => ({ gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, exponentformat: "e", ...told });
      const full = { ...layout, margin: { l: 50, r: 10, t: 8, b: 36 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size: 12 }, hovermode: isLines ? "x unified" : "closest", hoverdistance: -1,
        hoverlabel: { bgcolor: own("card"), font: { color: text } }, legend: { orientation: "h", y: 1, yanchor: "bottom" }, xaxis: axis(layout.xaxis), yaxis: axis({ ...layout.yaxis, ...(isLines && logarithmic ? { type: "log" } : {}) }) };
      Plotly.react(box, chart.data, full, { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "sendDataToCloud"] });
    }
  }
  document.addEventListener("look", draw);
  document.addEventListener("keydown", (event) => {
    if (typing(event)) return;
    if (event.key === "d") look.toggle();
    else if (event.key === "l") { logarithmic = !logarithmic; draw(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
