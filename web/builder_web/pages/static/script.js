// What pages do beyond being read. Each works without it: times are exact, hashes can be selected, forms can be sent.
"use strict";

// The theme is set before the page is drawn, so that it never flashes.
const THEMES = ["auto", "light", "dark"];
const ICONS = {
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5",
  dark: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
};
let theme = "auto";
try {
  const kept = localStorage.getItem("theme");
  if (THEMES.includes(kept)) theme = kept;
} catch {
  // no storage, no memory: the system's theme
}

function showTheme() {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function offerThemes() {
  const button = document.querySelector("button.theme");
  const label = () => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", ICONS[theme]);
    svg.append(path);
    button.replaceChildren(svg);
    button.title = `Theme: ${theme}`;
    button.setAttribute("aria-label", `Theme: ${theme}`);
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try {
      if (theme === "auto") localStorage.removeItem("theme");
      else localStorage.setItem("theme", theme);
    } catch {
      // it lasts for this page
    }
    showTheme();
    label();
  });
  label();
  button.hidden = false;
}

// Times: relative, the exact one on hover. From a month on it is the day: "1 year ago" would tell no builds apart.
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const MONTH = 30 * 86400;
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "always" });

function relative(seconds) {
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return RELATIVE.format(-Math.trunc(seconds / length), unit);
  }
  return "just now";
}

function relateTimes() {
  const now = Date.now();
  for (const element of document.querySelectorAll("time")) {
    const moment = Date.parse(element.dateTime);
    if (Number.isNaN(moment)) continue;
    if (!element.title) element.title = element.textContent;
    const seconds = (now - moment) / 1000;
    element.textContent = Math.abs(seconds) < MONTH ? relative(seconds) : element.title.slice(0, 10);
  }
}

// Hashes: copied by a button.
function offerCopies() {
  if (!navigator.clipboard) return;
  for (const element of document.querySelectorAll("a.hash, [data-copy]")) {
    const hash = element.dataset.copy ?? element.pathname.split("/").pop();
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.title = "Copy";
    button.setAttribute("aria-label", `Copy the SHA256 ${hash.slice(0, 12)}…`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(hash);
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1500);
    });
    if (element.matches("a")) element.after(button);
    else element.append(button);
  }
}

// "/" goes to the search, as in many places.
function listenForSlash() {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select")) return;
    event.preventDefault();
    document.querySelector(".console-tools .find input, form.search input").focus();
  });
}

// What was searched for in a console is marked where it was found.
function markFound() {
  const words = document.querySelector("pre.matches")?.dataset.query?.toLowerCase();
  if (!words || !CSS.highlights) return;
  const ranges = [];
  for (const line of document.querySelectorAll("pre.matches > span > span")) {
    const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode;
      const start = text.data.toLowerCase().indexOf(words);
      if (start < 0) continue;
      const range = new Range();
      range.setStart(text, start);
      range.setEnd(text, Math.min(start + words.length, text.length));
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

// A console opens at its end, unless the address names a line.
function showEnd() {
  const lines = document.querySelector("pre.console[data-end]");
  if (lines && !location.hash) lines.lastElementChild?.scrollIntoView({ block: "end", behavior: "instant" });
}

showTheme();
document.addEventListener("DOMContentLoaded", () => {
  offerThemes();
  relateTimes();
  offerCopies();
  listenForSlash();
  markFound();
  showEnd();
  setInterval(relateTimes, 60_000);
});
