// Small pictures of the list: of the image if it was sent from here, else of the overlay or mask.

import { output } from "./api.js";
import * as photos from "./photos.js";

const [WIDTH, HEIGHT] = [128, 96]; // px of the canvas, twice what is seen
const AT_ONCE = 2;
const MOST_PALETTE = 256; // classes; masks of more have no colours of their own

const drawn = new Map(); // by job id, pictures as they were drawn
const waiting = [];
let drawing = 0;

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      waiting.push(target);
    }
    next();
  },
  { rootMargin: "120px" },
);

const jobs = new WeakMap(); // of canvases

// Draw the picture of a job as soon as the canvas is looked at.
export function show(canvas, job) {
  const key = `${job.id} ${source(job)}`;
  if (canvas.dataset.shown === key) return;
  canvas.dataset.shown = key;
  jobs.set(canvas, job);
  if (drawn.has(key)) draw(canvas, drawn.get(key));
  else if (source(job)) observer.observe(canvas);
}

function source(job) {
  if (photos.fileOf(job.id)) return "photo";
  const made = job.result?.outputs ?? {};
  return made.overlay ? "overlay" : made.mask ? "mask" : "";
}

function next() {
  while (drawing < AT_ONCE && waiting.length) {
    const canvas = waiting.shift();
    if (!canvas.isConnected) {
      delete canvas.dataset.shown;
      continue;
    }
    drawing++;
    picture(canvas, jobs.get(canvas))
      .catch(() => {}) // what is no image of the browser's has no small picture
      .finally(() => {
        drawing--;
        next();
      });
  }
}

async function picture(canvas, job) {
  const kind = source(job);
  const blob = kind === "photo" ? photos.fileOf(job.id) : kind ? await output(job.id, kind) : null;
  if (!blob) return;
  const bitmap = await createImageBitmap(blob, { resizeWidth: 2 * WIDTH, resizeQuality: "medium" });
  if (kind === "mask" && Object.keys(job.result.labels).some((id) => id >= MOST_PALETTE)) return;
  drawn.set(`${job.id} ${kind}`, bitmap);
  draw(canvas, bitmap);
}

// Fill the canvas, cut at the longer side.
function draw(canvas, bitmap) {
  [canvas.width, canvas.height] = [WIDTH, HEIGHT];
  const scale = Math.max(WIDTH / bitmap.width, HEIGHT / bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  canvas.getContext("2d").drawImage(bitmap, (WIDTH - width) / 2, (HEIGHT - height) / 2, width, height);
  canvas.classList.add("drawn");
}
