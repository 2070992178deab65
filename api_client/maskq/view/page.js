// What `maskq view` adds to stage.js, which stands before it in the page's script.
const by = (id) => document.getElementById(id);
const data = JSON.parse(by("data").textContent);
const { width, height } = data;

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

const names = ["stage", "divider", "readout", "opacity", "legend", "clear", "hint", "photo"];
const elements = Object.fromEntries(names.map((name) => [name, by(name)]));
const slots = await bytes(data.mask);
const confidence = data.confidence && (await bytes(data.confidence));
new Stage({ ...elements, canvas: by("mask") }, { width, height, slots, confidence, classes: data.classes });
document.documentElement.dataset.ready = "yes";
