// An image with its mask over it: slider, opacity, legend and pointer. `maskq view` and the gateway's
// page share it.

export const NONE = 255; // in `slots`: no class
const VEIL = [12, 13, 16, 0.68]; // over what is not chosen
const STEPS = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10 };

// Red, green, blue and strength (0..1) as one pixel of a canvas.
export const word = ([red, green, blue], strength) =>
  ((Math.round(255 * strength) << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// How uncertain pixels are drawn, by confidence 0..255: dark blue where certain, yellow where not.
const RAMP = [
  [253, 231, 37],
  [244, 136, 73],
  [190, 55, 118],
  [92, 22, 130],
  [20, 16, 52],
];
function heat(confidence) {
  const at = (confidence / 255) * (RAMP.length - 1);
  const [low, part] = [
    Math.min(Math.floor(at), RAMP.length - 2),
    at - Math.min(Math.floor(at), RAMP.length - 2),
  ];
  return RAMP[low].map((value, i) => Math.round(value + (RAMP[low + 1][i] - value) * part));
}

export class Stage {
  // elements: stage, canvas, divider, readout, opacity, legend, clear, hint; photo or null.
  // picture: width, height, slots (a byte a pixel: place in `classes`, or NONE), classes ({label,
  //   colour}), confidence (a byte a pixel) or null.
  // pick(x, y): what lies there (x and y 0..1) as {slot, label, colour, sure}, or null; default: as drawn.
  // signal: an AbortSignal that removes what listens outside of the elements.
  constructor(elements, picture, { pick, signal } = {}) {
    Object.assign(this, elements, picture);
    this.pick = pick ?? ((x, y) => this.#drawn(x, y));
    this.entries = [...this.legend.querySelectorAll(".entry")];
    this.pinned = null; // the class that was chosen
    this.passing = null; // the class that is pointed at in the legend
    this.position = this.photo ? 50 : 0; // where the mask begins, percent of the width
    this.mode = "mask"; // or "confidence"
    this.due = false;
    this.canvas.width = this.width;
    this.canvas.height = this.height;
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(this.width, this.height);
    this.words = new Uint32Array(this.image.data.buffer);
    if (!this.photo) this.opacity.value = 100;
    this.#listen(signal);
    this.slide(this.position);
  }

  // Draw the mask, or how certain it is.
  show(mode) {
    this.mode = mode;
    this.#redraw();
  }

  // Choose a class of the legend; once more: none.
  pin(slot) {
    this.pinned = slot === this.pinned ? null : slot;
    this.passing = null;
    this.#redraw();
  }

  // Let the mask begin at this share of the width, percent.
  slide(percent) {
    this.position = Math.min(100, Math.max(0, percent));
    this.pinned = this.passing = null;
    this.divider.style.left = `${this.position}%`;
    this.divider.setAttribute("aria-valuenow", String(Math.round(this.position)));
    this.#redraw();
  }

  #drawn(x, y) {
    const at = Math.floor(y * this.height) * this.width + Math.floor(x * this.width);
    const [slot, shown] = [this.slots[at], this.classes[this.slots[at]]];
    if (!shown && slot !== NONE) return null;
    const sure = this.confidence ? this.confidence[at] : null;
    return { slot, label: shown?.label ?? "not asked for", colour: shown?.colour ?? null, sure };
  }

  // What each class is drawn as while `chosen` is (or, null, while none is).
  #inks(chosen) {
    const strength = this.opacity.value / 100;
    const table = new Uint32Array(256);
    const veil = this.photo ? word(VEIL, VEIL[3]) : 0;
    for (let slot = 0; slot < 256; slot++) {
      const colour = this.classes[slot]?.colour;
      if (chosen === null) table[slot] = colour ? word(colour, strength) : 0;
      else if (slot === chosen) table[slot] = word(colour, this.photo ? 0.7 * strength : strength);
      else table[slot] = this.photo ? veil : colour ? word(colour, 0.12) : 0;
    }
    return table;
  }

  #draw() {
    const { words, slots, stage, legend } = this;
    const chosen = this.passing ?? this.pinned;
    if (this.mode === "confidence" && chosen === null) {
      const strength = this.opacity.value / 100;
      const table = Uint32Array.from({ length: 256 }, (_, value) => word(heat(value), strength));
      for (let i = 0; i < slots.length; i++) words[i] = table[this.confidence[i]];
    } else {
      const table = this.#inks(chosen);
      for (let i = 0; i < slots.length; i++) words[i] = table[slots[i]];
    }
    if (chosen !== null) this.#outline(chosen, word(this.classes[chosen].colour, 1));
    this.context.putImageData(this.image, 0, 0);
    stage.classList.toggle("chosen", chosen !== null);
    legend.classList.toggle("chosen", chosen !== null);
    this.canvas.style.clipPath = chosen === null ? `inset(0 0 0 ${this.position}%)` : "none";
    this.clear.hidden = this.pinned === null;
    this.hint.hidden = this.pinned !== null;
    this.entries.forEach((entry, slot) => entry.setAttribute("aria-pressed", String(slot === this.pinned)));
  }

  // Two pixels wide, inside the class.
  #outline(chosen, ink) {
    const { slots, words, width, height } = this;
    const other = (i, far) => slots[i - far] !== chosen || slots[i + far] !== chosen;
    for (let y = 0, i = 0; y < height; y++)
      for (let x = 0; x < width; x++, i++)
        if (slots[i] === chosen && (other(i, 1) || other(i, 2) || other(i, width) || other(i, 2 * width)))
          words[i] = ink;
  }

  #redraw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.#draw();
    });
  }

  #share(event) {
    const box = this.stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #under(event) {
    const [x, y] = this.#share(event);
    return x < 0 || y < 0 || x >= 1 || y >= 1 ? null : this.pick(x, y);
  }

  #read(event) {
    const { readout } = this;
    const found = this.#under(event);
    readout.hidden = !found;
    if (!found) return;
    const [swatch, label, sure] = readout.children;
    swatch.style.background = found.colour ? `rgb(${found.colour})` : "transparent";
    label.textContent = found.label;
    sure.textContent = found.sure === null ? "" : `${Math.round(found.sure / 2.55)} % sure`;
    const box = this.stage.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const left = x + 16 + readout.offsetWidth > box.width ? x - 16 - readout.offsetWidth : x + 16;
    const top = y + 18 + readout.offsetHeight > box.height ? y - 10 - readout.offsetHeight : y + 18;
    readout.style.left = `${Math.max(4, left)}px`;
    readout.style.top = `${Math.max(4, top)}px`;
  }

  #listen(signal) {
    const { stage, divider } = this;
    const choose = (event) => {
      const found = this.#under(event);
      if (found && this.classes[found.slot]) this.pin(found.slot);
    };
    this.canvas.addEventListener("click", choose);
    this.photo?.addEventListener("click", choose); // where the mask is clipped away
    stage.addEventListener("pointermove", (event) => this.#read(event));
    stage.addEventListener("pointerdown", (event) => this.#read(event));
    stage.addEventListener("pointerleave", () => (this.readout.hidden = true));
    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      this.slide(100 * this.#share(event)[0]);
    });
    divider.addEventListener("pointermove", (event) => {
      if (divider.hasPointerCapture(event.pointerId)) this.slide(100 * this.#share(event)[0]);
    });
    divider.addEventListener("keydown", (event) => {
      const ends = { Home: 0, End: 100 };
      const to = ends[event.key] ?? (STEPS[event.key] && this.position + STEPS[event.key]);
      if (to === undefined) return;
      event.preventDefault();
      this.slide(to);
    });
    this.opacity.addEventListener("input", () => this.#redraw());
    this.clear.addEventListener("click", () => this.pin(this.pinned));
    document.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape" || this.pinned === null) return;
        event.preventDefault();
        this.pin(this.pinned);
      },
      { signal },
    );
    this.entries.forEach((entry, slot) => {
      const point = (to) => () => {
        this.passing = to;
        this.#redraw();
      };
      entry.addEventListener("click", () => this.pin(slot));
      entry.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point(slot)());
      entry.addEventListener("pointerleave", point(null));
    });
  }
}
