/* Refreshes the page in place: fetches the same address again and changes what has changed.
   Promise: what the reader has opened, scrolled to, selected or typed stays as it is, and a broker or console
   that is away is said above the page, which stays readable and goes on by itself. */
"use strict";

(() => {
  const PERIOD = 2000;
  const main = document.getElementById("main");
  const notice = document.getElementById("notice");
  const dot = document.getElementById("dot");
  const label = document.getElementById("auto");
  const toggle = label.querySelector("input");
  let tag = null;
  let running = false;

  /* Which of the new children is the old one: by data-key, else by kind and place. */
  const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key : undefined);

  const alike = (a, b) =>
    a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  const morph = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== 1) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS"))
        old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    if (old.nodeName !== "FORM") children(old, fresh); /* a form keeps what is being typed */
  };

  const children = (old, fresh) => {
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child) !== undefined) keyed.set(keyOf(child), child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const key = keyOf(next);
      let match = key !== undefined ? keyed.get(key) : at;
      while (key === undefined && match && keyOf(match) !== undefined) match = match.nextSibling;
      if (match && alike(match, next)) {
        if (match !== at) old.insertBefore(match, at);
        else at = at.nextSibling;
        morph(match, next);
      } else {
        old.insertBefore(document.importNode(next, true), at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };

  const say = (text, down = Boolean(text)) => {
    if (notice.textContent !== text) notice.textContent = text;
    notice.hidden = !text;
    document.body.classList.toggle("stale", Boolean(text));
    dot.className = down ? "dot down" : "dot";
  };

  const troubled = (page) => page.querySelector("[data-problem]");
  const away = (page) => troubled(page)?.dataset.problem === "503";

  const refresh = async () => {
    try {
      const answer = await fetch(location.href, {
        headers: tag ? { "If-None-Match": tag } : {},
        cache: "no-store",
        signal: AbortSignal.timeout(10000),
      });
      if (answer.status === 304) return say("");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const trouble = troubled(page);
      if (trouble && !troubled(document)) {
        /* The facts on the page are old but not wrong: keep them, and say what is the matter. */
        const [title, detail] = ["h1", ".detail"].map((part) => trouble.querySelector(part).textContent);
        return say(`${title}: ${detail}`, away(page));
      }
      if (!page.getElementById("main")) throw new Error("not a page of the console");
      tag = answer.headers.get("ETag");
      document.title = page.title;
      morph(main, page.getElementById("main"));
      return say("", away(page));
    } catch {
      return say("The console does not answer. It looks again by itself.");
    }
  };

  const tick = async () => {
    if (running || document.hidden || !toggle.checked) return;
    running = true;
    await refresh();
    running = false;
  };

  toggle.checked = localStorage.getItem("relance-refresh") !== "off";
  label.hidden = false;
  toggle.addEventListener("change", () => {
    localStorage.setItem("relance-refresh", toggle.checked ? "on" : "off");
    if (!toggle.checked) say("");
    tick();
  });
  document.addEventListener("visibilitychange", tick);
  if (away(document)) dot.className = "dot down";
  setInterval(tick, PERIOD);
})();
