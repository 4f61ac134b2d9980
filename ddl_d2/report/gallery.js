const cards = [...document.querySelectorAll(".card")];
const filters = [...document.querySelectorAll("[data-filter]")];
const find = document.getElementById("find");

document.querySelectorAll(".needs-script").forEach((part) => { part.hidden = false; });
cards.forEach((card) => {
  const map = card.querySelector("img.map");
  if (!map || !card.querySelector("[data-opacity]")) return;
  const layer = map.cloneNode();
  layer.className = "layer";
  layer.alt = "";
  layer.style.opacity = 0;
  card.querySelector(".stack").append(layer);
});

function filter() {
  const words = find.value.trim().toLowerCase();
  cards.forEach((card) => {
    const wanted = filters.every((one) => one.value === "" || card.dataset[one.dataset.filter] === one.value);
    card.hidden = !wanted || !card.dataset.name.includes(words);
  });
  document.querySelectorAll(".gallery").forEach((gallery) => {
    const all = gallery.querySelectorAll(".card").length;
    const shown = gallery.querySelectorAll(".card:not([hidden])").length;
    gallery.querySelector(".none").hidden = all === 0 || shown > 0;
  });
  const shown = cards.filter((card) => !card.hidden).length;
  document.getElementById("count").textContent = `${shown} of ${cards.length} images`;
}

if (find) {
  filters.forEach((one) => one.addEventListener("change", filter));
  find.addEventListener("input", filter);
  find.form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape" && event.target === find) {
      find.value = "";
      filter();
      find.blur();
      return;
    }
    if (event.target.closest("input, select")) return;
    if (event.key === "/") {
      find.focus();
      event.preventDefault();
      return;
    }
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const shown = cards.filter((card) => !card.hidden);
    const place = shown.indexOf(event.target.closest(".card"));
    const next = place < 0 ? shown[0] : shown[place + step];
    if (next) next.focus();
    event.preventDefault();
  });
}
