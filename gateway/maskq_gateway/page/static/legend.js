// The classes of a mask: colour, label and share, largest first.

import { el } from "./dom.js";
import { percent } from "./format.js";

const GOLDEN_RATIO = 0.618033988749895;
export const MOST = 255; // classes that can be chosen; what covers less is only pointed at

// {id, label, share, colour} of the ids of a mask that are classes.
export function classesOf({ width, height, counts, palette }, labels) {
  const total = width * height;
  const found = [];
  for (let id = 0; id < counts.length; id++)
    if (counts[id] && labels[id] !== undefined)
      found.push({ id, label: labels[id], share: counts[id] / total, colour: colourOf(id, palette) });
  return found.sort((a, b) => b.share - a.share || a.id - b.id);
}

// As the mask's own palette has it; one of many where it has none (as `maskq view` does).
export function colourOf(id, palette) {
  if (palette && palette.length >= 3 * id + 3) return [...palette.subarray(3 * id, 3 * id + 3)];
  const hue = (id * GOLDEN_RATIO) % 1;
  const part = (offset) => {
    const k = (offset + hue * 6) % 6;
    return Math.round(255 * 0.9 * (1 - 0.7 * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [part(5), part(3), part(1)];
}

// Buttons for the classes; nothing listens to them yet.
export function entries(classes, { isButton = true } = {}) {
  const largest = Math.max(...classes.map((one) => one.share), 0) || 1;
  return classes.map(({ label, share, colour }) => {
    const swatch = el("span", { class: "swatch" });
    const bar = el("span");
    for (const node of colour ? [swatch, bar] : []) node.style.background = `rgb(${colour})`;
    bar.style.width = `${((100 * share) / largest).toFixed(2)}%`;
    const attributes = isButton
      ? { type: "button", class: "entry", "aria-pressed": "false" }
      : { class: "entry still" };
    return el(
      "li",
      {},
      el(
        isButton ? "button" : "div",
        attributes,
        swatch,
        el("bdi", { class: "label", title: label }, label),
        el("span", { class: "percent" }, percent(share)),
        el("span", { class: "bar" }, bar),
      ),
    );
  });
}
