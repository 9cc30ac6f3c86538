"use strict";
// dark or light: the system's choice until `d` is pressed; kept where the browser keeps anything for the page
const look = {
  get() { try { return localStorage.getItem("look"); } catch { return null; } },
  set(value) { try { localStorage.setItem("look", value); } catch { /* a page from a file may not store */ } },
  apply(value) { if (value) document.documentElement.dataset.look = value; },
  toggle() {
    const now = document.documentElement.dataset.look || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    look.apply(next); look.set(next);
    document.dispatchEvent(new Event("look"));
  },
};
look.apply(look.get());
function clock(seconds) {
  const s = Math.max(0, Math.floor(seconds)), two = (n) => String(n).padStart(2, "0"), hours = Math.floor(s / 3600);
  return hours ? `${hours}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
function typing(event) { return /^(input|select|textarea)$/i.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey; }
