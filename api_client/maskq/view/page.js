"use strict";
(async () => {
  const NONE = 255; // in the mask: no class
  const VEIL = [12, 13, 16, 0.68]; // over what is not chosen
  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  const { width, height, classes } = data;
  const [stage, canvas, divider, readout] = ["stage", "mask", "divider", "readout"].map(by);
  const [opacity, legend, clear, hint] = ["opacity", "legend", "clear", "hint"].map(by);
  const entries = [...legend.querySelectorAll(".entry")];
  let pinned = null; // the class that was chosen
  let passing = null; // the class that is pointed at in the legend
  let position = data.photo ? 50 : 0; // where the mask begins, percent of the width

  // One byte a pixel: pictures of the page are gray, so red says it all.
  async function bytes(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const scratch = document.createElement("canvas");
    scratch.width = width;
    scratch.height = height;
    const context = scratch.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, width, height).data;
    const reds = new Uint8Array(width * height);
    for (let i = 0; i < reds.length; i++) reds[i] = rgba[4 * i];
    return reds;
  }

  const slots = await bytes(data.mask);
  const confidence = data.confidence && (await bytes(data.confidence));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const words = new Uint32Array(picture.data.buffer);
  if (!data.photo) opacity.value = 100;

  const word = ([red, green, blue], alpha) =>
    ((Math.round(255 * alpha) << 24) | (blue << 16) | (green << 8) | red) >>> 0;

  // What each class is drawn as while `chosen` is (or, null, while none is).
  function inks(chosen) {
    const strength = opacity.value / 100;
    const table = new Uint32Array(256);
    const veil = data.photo ? word(VEIL, VEIL[3]) : 0;
    for (let slot = 0; slot < 256; slot++) {
      const colour = classes[slot]?.colour;
      if (chosen === null) table[slot] = colour ? word(colour, strength) : 0;
      else if (slot === chosen) table[slot] = word(colour, data.photo ? 0.7 * strength : strength);
      else table[slot] = data.photo ? veil : colour ? word(colour, 0.12) : 0;
    }
    return table;
  }

  function draw() {
    const chosen = passing ?? pinned;
    const table = inks(chosen);
    for (let i = 0; i < slots.length; i++) words[i] = table[slots[i]];
    if (chosen !== null) outline(chosen, word(classes[chosen].colour, 1));
    context.putImageData(picture, 0, 0);
    stage.classList.toggle("chosen", chosen !== null);
    legend.classList.toggle("chosen", chosen !== null);
    canvas.style.clipPath = chosen === null ? `inset(0 0 0 ${position}%)` : "none";
    clear.hidden = pinned === null;
    hint.hidden = pinned !== null;
    entries.forEach((entry, slot) => entry.setAttribute("aria-pressed", String(slot === pinned)));
  }

  // Two pixels wide, inside the class.
  function outline(chosen, ink) {
    const other = (i, far) => slots[i - far] !== chosen || slots[i + far] !== chosen;
    for (let y = 0, i = 0; y < height; y++)
      for (let x = 0; x < width; x++, i++)
        if (slots[i] === chosen && (other(i, 1) || other(i, 2) || other(i, width) || other(i, 2 * width)))
          words[i] = ink;
  }

  let due = false;
  function redraw() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      draw();
    });
  }

  function pin(slot) {
    pinned = slot === pinned ? null : slot;
    passing = null;
    redraw();
  }

  function slide(percent) {
    position = Math.min(100, Math.max(0, percent));
    pinned = passing = null;
    divider.style.left = `${position}%`;
    divider.setAttribute("aria-valuenow", String(Math.round(position)));
    redraw();
  }

  function share(event) {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function pixel(event) {
    const [x, y] = share(event);
    if (x < 0 || y < 0 || x >= 1 || y >= 1) return null;
    return Math.floor(y * height) * width + Math.floor(x * width);
  }

  function read(event) {
    const at = pixel(event);
    const shown = at === null ? undefined : classes[slots[at]];
    readout.hidden = at === null || (!shown && slots[at] !== NONE);
    if (readout.hidden) return;
    const [swatch, label, sure] = readout.children;
    swatch.style.background = shown ? `rgb(${shown.colour})` : "transparent";
    label.textContent = shown ? shown.label : "not asked for";
    sure.textContent = confidence ? `${Math.round(confidence[at] / 2.55)} % sure` : "";
    const box = stage.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const left = x + 16 + readout.offsetWidth > box.width ? x - 16 - readout.offsetWidth : x + 16;
    const top = y + 18 + readout.offsetHeight > box.height ? y - 10 - readout.offsetHeight : y + 18;
    readout.style.left = `${Math.max(4, left)}px`;
    readout.style.top = `${Math.max(4, top)}px`;
  }

  canvas.addEventListener("click", (event) => {
    const slot = slots[pixel(event) ?? 0];
    if (classes[slot]) pin(slot);
  });
  stage.addEventListener("pointermove", read);
  stage.addEventListener("pointerdown", read);
  stage.addEventListener("pointerleave", () => (readout.hidden = true));
  // Where the mask is clipped away the photograph is what is clicked.
  by("photo")?.addEventListener("click", (event) => {
    const slot = slots[pixel(event) ?? 0];
    if (classes[slot]) pin(slot);
  });

  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    slide(100 * share(event)[0]);
  });
  divider.addEventListener("pointermove", (event) => {
    if (divider.hasPointerCapture(event.pointerId)) slide(100 * share(event)[0]);
  });
  const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10 };
  divider.addEventListener("keydown", (event) => {
    const ends = { Home: 0, End: 100 };
    const to = ends[event.key] ?? (steps[event.key] && position + steps[event.key]);
    if (to === undefined) return;
    event.preventDefault();
    slide(to);
  });

  opacity.addEventListener("input", redraw);
  clear.addEventListener("click", () => pin(pinned));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && pinned !== null) pin(pinned);
  });
  entries.forEach((entry, slot) => {
    const point = (to) => () => {
      passing = to;
      redraw();
    };
    entry.addEventListener("click", () => pin(slot));
    entry.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point(slot)());
    entry.addEventListener("pointerleave", point(null));
  });
  slide(position);
  document.documentElement.dataset.ready = "yes";
})();
