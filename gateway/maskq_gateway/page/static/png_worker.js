// Decodes PNGs beside the page, which stays responsive: 24 megapixels take a while.

import { decode } from "./png.js";

onmessage = async ({ data: { number, bytes, side } }) => {
  try {
    const found = await decode(new Uint8Array(bytes));
    const counts = new Uint32Array(found.ids instanceof Uint16Array ? 65536 : 256);
    for (let i = 0; i < found.ids.length; i++) counts[found.ids[i]]++;
    const small = fitted(found, side);
    postMessage({ number, ...found, counts, small }, [found.ids.buffer, counts.buffer, small.ids.buffer]);
  } catch (error) {
    postMessage({ number, error: error.message });
  }
};

// By nearest neighbour, with no side longer than `side`; never enlarged.
function fitted({ width, height, ids }, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  const [columns, rows] = [width, height].map((length) => Math.max(1, Math.round(length * scale)));
  const made = new ids.constructor(columns * rows);
  const from = Int32Array.from({ length: columns }, (_, x) => Math.floor(((x + 0.5) * width) / columns));
  for (let y = 0, at = 0; y < rows; y++) {
    const row = Math.floor(((y + 0.5) * height) / rows) * width;
    for (let x = 0; x < columns; x++, at++) made[at] = ids[row + from[x]];
  }
  return { width: columns, height: rows, ids: made };
}
