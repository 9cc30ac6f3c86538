"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { captions, windows, length, methods } = data, count = captions.length;
  const plan = Uint8Array.from(atob(data.plan), (letter) => letter.charCodeAt(0)); // captions x windows, row by row
  const video = document.getElementById("video"), canvas = document.getElementById("map"), list = document.getElementById("sentences");
  const names = Object.keys(methods);
  let method = names.includes(data.method) ? data.method : names[0], now = 0, playing = false, last = 0, current = -1;

  // a page without a video file has a clock of its own
  const player = {
    get time() { return video ? video.currentTime : now; },
    seek(second) { const to = Math.min(Math.max(0, second), length); now = to; if (video) video.currentTime = to; paint(); },
    toggle() {
      if (video) { if (video.paused) video.play().catch(() => {}); else video.pause(); return; }
      playing = !playing; last = performance.now(); requestAnimationFrame(tick);
    },
  };
  function tick(stamp) {
    if (video ? video.paused : !playing) { paint(); return; }
    if (!video) { now += (stamp - last) / 1000; last = stamp; if (now >= length) { now = length; playing = false; } }
    paint(); requestAnimationFrame(tick);
  }

  const rows = captions.map((caption, index) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const when = document.createElement("span"), text = document.createElement("span");
    when.className = "when"; text.className = "text"; text.textContent = caption.text; button.type = "button"; button.append(when, text);
    button.addEventListener("click", () => go(index));
    item.append(button); list.append(item);
    return { button, when, text };
  });
  const shown = (index) => captions[index].visible === false ? null : captions[index].spans[method];
  function go(index) {
    current = index;
    const span = captions[index].spans[method] || captions[index].said;
    if (span) player.seek(span[0]);
    rows[index].button.focus({ preventScroll: true }); paint();
  }
  function choose(name) {
    method = name;
    for (const button of document.querySelectorAll("[data-method]")) button.setAttribute("aria-checked", String(button.dataset.method === name));
    document.getElementById("meaning").textContent = methods[name];
    rows.forEach(({ when, text, button }, index) => {
      const span = shown(index), mass = captions[index].mass[name];
      when.textContent = span ? `${clock(span[0])} – ${clock(span[1])}` : "not visible";
      text.classList.toggle("unseen", !span);
      button.title = span && mass !== null ? `${Math.round(100 * mass)} % of the mass of the sentence lies here` : "";
    });
    document.querySelector(".key.aligned").style.background = `var(--${name})`;
    draw(); paint();
  }

  // the map is drawn once per method and size; the play head goes over a copy of it
  const HEIGHT = Math.max(8, Math.min(26, Math.floor(1200 / Math.max(1, count)))), AXIS = 22, board = document.createElement("canvas");
  let width = 0, scale = 1;
  function resolved(name) { const probe = document.createElement("span"); probe.style.color = `var(--${name})`; document.body.append(probe); const found = getComputedStyle(probe).color; probe.remove(); return found; }
  function channels(name) { const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true }); probe.fillStyle = resolved(name); probe.fillRect(0, 0, 1, 1); return probe.getImageData(0, 0, 1, 1).data; }
  const x = (second) => (second / length) * width;
  function draw() {
    scale = window.devicePixelRatio || 1; width = canvas.parentElement.clientWidth;
    const height = AXIS + count * HEIGHT;
    for (const one of [canvas, board]) { one.width = Math.round(width * scale); one.height = Math.round(height * scale); }
    canvas.style.height = `${height}px`;
    const pen = board.getContext("2d"); pen.setTransform(scale, 0, 0, scale, 0, 0); pen.clearRect(0, 0, width, height);
    const ink = Object.fromEntries(["text", "soft", "line", "truth", "said", method].map((name) => [name, resolved(name)])), [r, g, b] = channels("plan");
    pen.font = "11px system-ui, sans-serif"; pen.textBaseline = "middle";
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((seconds) => x(seconds) >= 60) || 7200;
    for (let second = 0; second <= length; second += step) { pen.fillStyle = ink.soft; pen.fillText(clock(second), x(second) + 3, AXIS / 2); pen.fillStyle = ink.line; pen.fillRect(x(second), 0, 1, height); }
    for (let row = 0; row < count; row++) {
      const top = AXIS + row * HEIGHT, caption = captions[row], span = shown(row);
      pen.fillStyle = ink.line; pen.fillRect(0, top + HEIGHT - 1, width, 1);
      if (!span) { pen.save(); pen.globalAlpha = 0.5; pen.fillStyle = ink.line; for (let at = 0; at < width; at += 8) pen.fillRect(at, top, 4, HEIGHT - 1); pen.restore(); }
      for (let column = 0; column < windows.length; column++) {
        const value = plan[row * windows.length + column];
        if (value < 3) continue;
        const [start, end] = windows[column];
        pen.fillStyle = `rgba(${r},${g},${b},${0.85 * value / 255})`;
        pen.fillRect(x(start), top, Math.max(1, x(end) - x(start)), HEIGHT - 1);
      }
      if (caption.truth) { pen.fillStyle = ink.truth; pen.fillRect(x(caption.truth[0]), top + HEIGHT - 4, Math.max(2, x(caption.truth[1]) - x(caption.truth[0])), 3); }
      if (caption.said) { pen.fillStyle = ink.said; pen.fillRect(x(caption.said[0]), top + HEIGHT / 2 - 1, Math.max(2, x(caption.said[1]) - x(caption.said[0])), 2); }
      if (span) { pen.strokeStyle = ink[method]; pen.lineWidth = 2; pen.strokeRect(x(span[0]) + 1, top + 1, Math.max(2, x(span[1]) - x(span[0]) - 2), HEIGHT - 3); }
    }
  }
  function paint() {
    const pen = canvas.getContext("2d"), time = player.time;
    pen.setTransform(1, 0, 0, 1, 0, 0); pen.clearRect(0, 0, canvas.width, canvas.height);
    if (board.width && board.height) pen.drawImage(board, 0, 0);
    pen.setTransform(scale, 0, 0, scale, 0, 0); pen.fillStyle = resolved("bad"); pen.fillRect(x(time) - 1, 0, 2, canvas.height);
    document.getElementById("clock").textContent = clock(time);
    document.getElementById("play").textContent = (video ? !video.paused : playing) ? "⏸" : "▶";
    const inside = (index) => { const span = index >= 0 && shown(index); return span && time >= span[0] && time < span[1]; };
    if (!inside(current)) { const found = captions.findIndex((_, index) => inside(index)); if (found >= 0) current = found; }
    rows.forEach(({ button }, index) => { const is = index === current; if ((button.getAttribute("aria-current") === "true") !== is) {
      button.setAttribute("aria-current", String(is));
      if (is) { const box = list.getBoundingClientRect(), own = button.getBoundingClientRect(); if (own.top < box.top || own.bottom > box.bottom) list.scrollTop += own.top - box.top - box.height / 3; }
    } });
  }
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), row = Math.floor((event.clientY - box.top - AXIS) / HEIGHT);
    if (row >= 0 && row < count) current = row;
    player.seek(((event.clientX - box.left) / box.width) * length);
  });
  for (const button of document.querySelectorAll("[data-method]")) button.addEventListener("click", () => choose(button.dataset.method));
  document.getElementById("play").addEventListener("click", () => player.toggle());
  document.addEventListener("keydown", (event) => {
    if (typing(event)) return;
    const onButton = event.target.tagName === "BUTTON", key = event.key;
    if (key === " " && !onButton && event.target !== video) player.toggle();
    else if (key === "j") go(Math.min(count - 1, current + 1));
    else if (key === "k") go(Math.max(0, current - 1));
    else if (key === "ArrowLeft" && event.target !== video) player.seek(player.time - 5);
    else if (key === "ArrowRight" && event.target !== video) player.seek(player.time + 5);
    else if (/^[1-9]$/.test(key) && names[key - 1]) choose(names[key - 1]);
    else if (key === "d") look.toggle();
    else return;
    event.preventDefault();
  });
  document.addEventListener("look", () => { draw(); paint(); });
  window.addEventListener("resize", () => { draw(); paint(); });
  if (video) {
    for (const name of ["timeupdate", "seeked", "pause"]) video.addEventListener(name, paint);
    video.addEventListener("play", () => requestAnimationFrame(tick));
    video.addEventListener("error", () => { document.getElementById("trouble").hidden = false; });
  }
  choose(method);
  const asked = /^#t=([\d.]+)/.exec(location.hash);
  if (asked) player.seek(Number(asked[1]));
})();
