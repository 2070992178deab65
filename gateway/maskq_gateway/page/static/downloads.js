// The files of a result, to keep.

import { output } from "./api.js";
import { announce, el } from "./dom.js";
import { bytes, nameOf } from "./format.js";

const FILES = {
  mask: ["Mask", "png"],
  overlay: ["Overlay", "jpg"],
  confidence: ["Confidence", "png"],
  stats: ["Stats", "json"],
  rle: ["RLE", "json"],
  logits: ["Logits", "npy"],
};

// Buttons, as links could not send the key. button(text, pressed) makes one.
export function downloads(job, button) {
  const stem = nameOf(job).replace(/\.[^.]{1,5}$/, "");
  const buttons = Object.keys(FILES)
    .filter((name) => job.result.outputs[name])
    .map((name) =>
      button(FILES[name][0], async () =>
        save(await output(job.id, name), `${stem}-${name}.${FILES[name][1]}`),
      ),
    );
  const record = () =>
    save(new Blob([JSON.stringify(job, null, 2)], { type: "application/json" }), `${stem}-record.json`);
  return el(
    "div",
    { class: "downloads", role: "group", "aria-label": "Download" },
    el("h3", {}, "Download"),
    ...buttons,
    button("Record", record),
  );
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce(`${name}, ${bytes(blob.size)}`);
}
