"use strict";
(() => {
  const at = (id) => document.getElementById(id), form = at("form"), query = at("query"), only = at("only"), cards = at("cards"), status = at("status"), more = at("more");
  const PAGE = 60;
  let results = [], shown = 0, asked = 0, current = -1;

  function element(tag, name, text) { const made = document.createElement(tag); if (name) made.className = name; if (text !== undefined) made.textContent = text; return made; }
  function worth(confidence) {
    if (confidence === null) { const wait = element("span", "worth chance", "..."); wait.title = "what moments are worth is being worked out; ask again in a while"; return wait; }
    const percent = Math.floor(100 * confidence), kind = confidence >= 0.95 ? "good" : confidence >= 0.5 ? "unsure" : "chance";
    const mark = element("span", `worth ${kind}`, `${percent} %`);
    mark.title = kind === "good" ? "stands out" : kind === "unsure" ? "may fit" : "no better than what any sentence finds";
    return mark;
  }
  function play(card, result) {
    const view = card.querySelector(".view");
    if (!result.file) return;
    let video = view.querySelector("video");
    if (!video) {
      video = element("video"); video.controls = true; video.src = `/video/${result.number}#t=${result.start},${result.end}`;
      video.addEventListener("error", () => { view.replaceChildren(element("div", "none", "this browser cannot play the file")); });
      view.replaceChildren(video);
      video.play().catch(() => {});
    } else if (video.paused) video.play().catch(() => {}); else video.pause();
  }
  function cardOf(result, rank) {
    const card = element("li", "card"), view = element("div", "view"), line = element("p"), name = element("p", "id");
    card.tabIndex = 0; card.dataset.rank = rank;
    card.setAttribute("aria-label", `${rank}. ${result.video}, ${clock(result.start)} to ${clock(result.end)}`);
    if (result.file) {
      const picture = element("img"); picture.loading = "lazy"; picture.alt = "";
      picture.src = `/thumbnail?video=${result.number}&second=${(result.start + result.end) / 2}`;
      picture.addEventListener("error", () => view.replaceChildren(element("div", "none", "video file not readable")));
      view.append(picture, element("span", "play", "▶"));
    } else view.append(element("div", "none", "no video file"));
    line.append(element("b", "", `${rank}. `), `${clock(result.start)} – ${clock(result.end)} `);
    const mark = worth(result.confidence), score = element("span", "score"); score.append(mark); score.title = `similarity ${result.score.toPrecision(4)}`; line.append(score);
    name.textContent = result.video; name.title = result.video;
    const tools = element("p"), filter = element("button", "", "only this video");
    filter.type = "button"; filter.addEventListener("click", (event) => { event.stopPropagation(); only.value = result.video; ask(); });
    tools.append(filter);
    if (result.aligned) { const link = element("a", "aligned", "alignment"); link.href = `/alignment/${result.number}#t=${result.start}`; link.addEventListener("click", (event) => event.stopPropagation()); tools.append(" ", link); }
    card.append(view, line, name, tools);
    if (result.hub) card.append(element("p", "hub", `hub: among the best ten of ${Math.round(100 * result.hub)} % of unrelated sentences`));
    card.addEventListener("click", (event) => { if (event.target.tagName !== "VIDEO") play(card, result); });
    card.addEventListener("focus", () => { current = rank - 1; });
    return card;
  }
  function showMore() {
    const part = document.createDocumentFragment(), until = Math.min(results.length, shown + PAGE);
    for (; shown < until; shown++) part.append(cardOf(results[shown], shown + 1));
    cards.append(part);
    more.hidden = shown >= results.length;
    more.textContent = `${results.length - shown} more below`;
  }
  async function ask() {
    const sentence = query.value.trim(), turn = ++asked;
    if (!sentence) { status.textContent = "Say what to look for."; query.focus(); return; }
    const words = new URLSearchParams({ q: sentence, k: at("count").value, video: only.value.trim() });
    history.replaceState(null, "", `?${words}`);
    status.textContent = "searching ..."; status.classList.remove("bad");
    let answer;
    try {
      const reply = await fetch(`/api/search?${words}`);
      answer = await reply.json();
      if (!reply.ok) throw new Error(answer.error);
    } catch (error) {
      if (turn === asked) { status.textContent = `No answer: ${error.message}. Does mmpt search serve still run?`; status.classList.add("bad"); }
      return;
    }
    if (turn !== asked) return; // a later question is on its way
    results = answer.results; shown = 0; current = -1;
    cards.replaceChildren(); showMore();
    const best = Math.max(0, ...results.map((one) => one.confidence ?? 0)), milliseconds = Math.max(1, Math.round(1000 * answer.seconds));
    const verdict = !results.length || results[0].confidence === null ? "" : best >= 0.95 ? "" : best >= 0.5 ? " None of them stands out clearly." : " Probably nothing here fits: any sentence finds moments this close.";
    status.textContent = results.length ? `${results.length} moments in ${milliseconds} ms.${verdict}` : "No video has such a name.";
  }
  function move(step) {
    const next = Math.min(Math.max(0, current + step), results.length - 1);
    while (next >= shown && shown < results.length) showMore();
    const card = cards.children[next];
    if (card) { current = next; card.focus(); card.scrollIntoView({ block: "nearest" }); }
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  at("count").addEventListener("change", () => { if (query.value.trim()) ask(); });
  new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting) && shown < results.length) showMore(); }, { rootMargin: "800px" }).observe(more);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && typing(event)) { event.target.blur(); return; }
    if (typing(event)) return;
    const card = current >= 0 ? cards.children[current] : null, onCard = document.activeElement === card;
    if (event.key === "/") query.focus(), query.select();
    else if (event.key === "j" || (event.key === "ArrowRight" && onCard)) move(1);
    else if (event.key === "k" || (event.key === "ArrowLeft" && onCard)) move(-1);
    else if ((event.key === "Enter" || event.key === " ") && onCard) play(card, results[current]);
    else if (event.key === "a" && card && results[current].aligned) location.href = card.querySelector(".aligned").href;
    else if (event.key === "d") look.toggle();
    else return;
    event.preventDefault();
  });
  const words = new URLSearchParams(location.search);
  if (words.get("q")) { query.value = words.get("q"); only.value = words.get("video") || ""; if ([...at("count").options].some((one) => one.value === words.get("k"))) at("count").value = words.get("k"); ask(); }
})();
