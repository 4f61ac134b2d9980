// The page of `ddl-d2 serve`. It talks to its own service only, and keeps the last file in memory for the record.
"use strict";

const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let shown = null; // {file, model, fragility, answer} of what is on the page
let asked = 0; // the last upload counts: an answer that comes late for another is dropped

function make(name, text, className) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function shape(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
}

async function send(path, file, model, fragility) {
  const query = new URLSearchParams({ model, fragility, name: file.name || "pasted" });
  const answer = await fetch(`${path}?${query}`, {
    method: "POST",
    body: file,
    headers: { "Content-Type": "application/octet-stream" },
  });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

function fail(error) {
  at("error").textContent = error instanceof TypeError ? "The service does not answer: is it still running?" : error.message;
  at("error").hidden = false;
}

async function examine(file, fragility = false) {
  const number = ++asked;
  const model = at("model").value;
  at("error").hidden = true;
  at("result").hidden = true;
  at("status").textContent = fragility
    ? "Examining it as twelve deliveries would leave it …"
    : `Examining ${file.name || "the pasted image"} …`;
  try {
    const answer = await (await send("/api/predict", file, model, fragility)).json();
    if (number !== asked) return;
    shown = { file, model, fragility, answer };
    show(answer);
    at("status").textContent = `Examined ${answer.file} in ${answer.seconds} s.`;
  } catch (error) {
    if (number !== asked) return;
    at("status").textContent = "";
    fail(error);
  }
}

function show(answer) {
  at("verdict").className = `verdict ${answer.tone}`;
  at("headline").textContent = answer.headline;
  at("meaning").textContent = answer.meaning;
  at("score").textContent = scoreOf(answer);
  at("downloaded").textContent = "";
  showImage(answer);
  showFaces(answer);
  showFrames(answer);
  showDeliveries(answer);
  at("findings").replaceChildren(...answer.findings.map(finding));
  at("result").hidden = false;
}

function scoreOf(answer) {
  if (answer.score === null) return "";
  const ratio = answer.log10_lr === null ? "uncalibrated" : `log10 of the likelihood ratio ${answer.log10_lr.toFixed(2)}`;
  return `Score ${answer.score.toFixed(3)} (0 to 1; ${ratio}), by ${answer.model.name}.`;
}

function showImage(answer) {
  const { image, layer } = answer.images;
  at("view").hidden = !image;
  if (!image) return;
  at("image").src = image;
  at("image").alt = `The examined image, ${answer.file}`;
  at("layer").hidden = !layer;
  at("slider").hidden = !layer;
  if (layer) at("layer").src = layer;
  at("opacity").value = answer.tone === "forged" ? 60 : 0;
  setOpacity();
  at("boxes").replaceChildren();
  at("boxes").setAttribute("viewBox", `0 0 ${answer.size.width} ${answer.size.height}`);
  if (!layer) at("caption").textContent = "There is no map: the model looks at faces, and found none.";
  else if (answer.tone === "forged") at("caption").textContent = "Bright parts and the white line: signs of forgery.";
  else at("caption").textContent = "The map answers where, not whether: it lights up on authentic images, too.";
}

function setOpacity() {
  at("layer").style.opacity = at("opacity").value / 100;
  at("percent").textContent = `${at("opacity").value} %`;
}

function showFaces(answer) {
  at("faces").hidden = answer.faces.length === 0;
  at("face_list").replaceChildren(
    ...answer.faces.map((face, index) => {
      const button = make("button", `Face ${index + 1}: ${face.score.toFixed(3)}`);
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => chooseFace(button, face.box));
      const item = make("li");
      item.append(button);
      return item;
    }),
  );
}

function chooseFace(button, [left, top, right, bottom]) {
  const chosen = button.getAttribute("aria-pressed") === "true";
  at("face_list").querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", "false"));
  at("boxes").replaceChildren();
  if (chosen) return;
  button.setAttribute("aria-pressed", "true");
  const box = { x: left, y: top, width: right - left, height: bottom - top };
  shape(at("boxes"), "rect", { ...box, class: "under" });
  shape(at("boxes"), "rect", { ...box, class: "line" });
}

function showFrames(answer) {
  const frames = answer.frames.filter((frame) => frame.score !== null);
  at("timeline").hidden = answer.kind !== "clip" || frames.length === 0;
  if (at("timeline").hidden) return;
  const last = Math.max(...frames.map((frame) => frame.seconds), 0.001);
  const place = (frame) => `${(1000 * frame.seconds) / last},${100 - 100 * frame.score}`;
  const curve = at("curve");
  curve.replaceChildren();
  curve.setAttribute("viewBox", "-5 -3 1010 106");
  curve.setAttribute("preserveAspectRatio", "none");
  curve.setAttribute("aria-label", `Scores of ${frames.length} frames over ${last.toFixed(1)} seconds`);
  shape(curve, "line", { x1: 0, x2: 1000, y1: 100, y2: 100, class: "axis" });
  const height = 100 - 100 * answer.model.threshold;
  shape(curve, "line", { x1: 0, x2: 1000, y1: height, y2: height, class: "threshold" });
  shape(curve, "polyline", { points: frames.map(place).join(" "), class: "scores" });
}

function showDeliveries(answer) {
  at("fragility").hidden = answer.kind !== "image" || answer.score === null;
  at("fragility").disabled = answer.fragility !== null;
  at("deliveries").hidden = answer.fragility === null;
  if (answer.fragility === null) return;
  at("holds").textContent = answer.findings.find((one) => one.name === "fragility").statement;
  at("delivered").replaceChildren(
    ...answer.fragility.deliveries.map((one) => {
      const row = make("tr");
      row.append(make("td", one.delivery), make("td", one.score === null ? "" : one.score.toFixed(3)), make("td", one.verdict));
      return row;
    }),
  );
}

function finding(one) {
  const box = make("article", undefined, "finding");
  const title = make("h3", one.title);
  title.append(make("span", one.kind, "kind"));
  const more = make("details");
  more.append(make("summary", "Limits and other explanations"), list(one.limits));
  if (one.alternatives.length) more.append(make("p", "What else could explain it"), list(one.alternatives));
  if (one.value !== null) more.append(make("pre", JSON.stringify(one.value)));
  box.append(title, make("p", one.statement), more);
  return box;
}

function list(texts) {
  const element = make("ul");
  element.append(...texts.map((text) => make("li", text)));
  return element;
}

async function download() {
  const button = at("download");
  button.disabled = true;
  at("downloaded").textContent = "Making the record …";
  try {
    const answer = await send("/api/record", shown.file, shown.model, shown.fragility);
    const link = make("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))[1];
    link.click();
    URL.revokeObjectURL(link.href);
    at("downloaded").textContent = `Saved as ${link.download}.`;
  } catch (error) {
    at("downloaded").textContent = "";
    fail(error);
  } finally {
    button.disabled = false;
  }
}

async function begin() {
  for (;;) {
    const { models } = await (await fetch("/api/models")).json();
    if (models.length) {
      at("model").replaceChildren(...models.map((one) => Object.assign(make("option", one.name), { about: one.about })));
      describe();
      at("status").textContent = "Ready.";
      return;
    }
    at("status").textContent = "The models are being loaded …";
    await new Promise((done) => setTimeout(done, 500));
  }
}

function describe() {
  const option = at("model").selectedOptions[0];
  at("about").textContent = option ? option.about : "";
}

const take = (files) => files.length && examine(files[0]);
at("file").addEventListener("change", () => take(at("file").files));
at("model").addEventListener("change", () => {
  describe();
  if (shown) examine(shown.file);
});
at("opacity").addEventListener("input", setOpacity);
at("download").addEventListener("click", download);
at("fragility").addEventListener("click", () => examine(shown.file, true));
at("form").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("paste", (event) => take(event.clipboardData.files));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") take(event.dataTransfer.files);
  });
}
begin().catch(fail);
