// Class ids of a mask and values of a confidence picture, at full size.

let worker = null;
let numbered = 0;
const waiting = new Map();

function started() {
  if (worker) return worker;
  worker = new Worker(new URL("./png_worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data: { number, error, ...found } }) => {
    const { done, refused } = waiting.get(number);
    waiting.delete(number);
    if (error) refused(new Error(error));
    else done(found);
  };
  worker.onerror = (event) => {
    for (const { refused } of waiting.values()) refused(new Error(event.message || "it cannot be decoded"));
    waiting.clear();
    worker = null;
  };
  return worker;
}

// {width, height, ids, palette, counts} of a PNG; counts: pixels by id. Raises Error.
export async function pixels(blob) {
  const bytes = await blob.arrayBuffer();
  const number = numbered++;
  return new Promise((done, refused) => {
    waiting.set(number, { done, refused });
    started().postMessage({ number, bytes }, [bytes]);
  });
}

// Width and height no longer than `side`; never enlarged.
export function fitted(width, height, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

// `source` (a value a pixel) at another size by nearest neighbour, each value through `table`.
export function resized({ width, height, ids }, [toWidth, toHeight], table) {
  const made = new Uint8Array(toWidth * toHeight);
  const columns = Int32Array.from({ length: toWidth }, (_, x) => Math.floor(((x + 0.5) * width) / toWidth));
  for (let y = 0, at = 0; y < toHeight; y++) {
    const row = Math.floor(((y + 0.5) * height) / toHeight) * width;
    for (let x = 0; x < toWidth; x++, at++) made[at] = table[ids[row + columns[x]]];
  }
  return made;
}
