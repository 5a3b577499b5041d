// Keys that a writer's hands know, and texts that survive a reload: Gradio reloads the page when a lost server is back.
(() => {
  const KEPT = ["box-title", "box-outline", "box-requirements", "box-material", "box-text"];
  const kept = JSON.parse(sessionStorage.getItem("vedere-typed") || "{}");
  const remember = () => sessionStorage.setItem("vedere-typed", JSON.stringify(kept));
  const heading = () => document.getElementById("heading")?.innerText.trim();

  // Says whether the text of the selected paragraph was typed in; what was typed is handed over with the next click.
  document.addEventListener("input", (event) => {
    const id = KEPT.find((one) => event.target.closest("#" + one));
    if (!id) return;
    if (id === "box-text") globalThis.vedereTyped = true;
    kept[id] = {text: event.target.value, of: id === "box-text" ? heading() : ""};
    remember();
  });
  globalThis.vedereTaken = () => {  // the server has answered: what was handed over is in the article
    if (globalThis.vedereTyped) return;
    delete kept["box-text"];
    remember();
  };

  // A paragraph's own text has to be there before the typed one takes its place; values are no part of the document tree, so
  // this looks again and again for a while.
  const waiting = {...kept};
  const looking = setInterval(() => {
    for (const id of Object.keys(waiting)) {
      const box = document.querySelector(`#${id} textarea`);
      const ofText = id === "box-text";
      if (!box || (ofText && (!box.value || heading() !== waiting[id].of))) continue;
      const {text} = waiting[id];
      delete waiting[id];
      if (box.value === text || (!ofText && box.value)) continue;
      box.value = text;
      box.dispatchEvent(new Event("input", {bubbles: true}));
    }
    if (!Object.keys(waiting).length) clearInterval(looking);
  }, 150);
  setTimeout(() => clearInterval(looking), 20000);

  const press = (id) => {
    const button = document.getElementById(id);
    if (button && !button.disabled && button.offsetParent) button.click();
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, [contenteditable]");
    if (event.key === "Escape") press("do-close");
    else if (!typing && (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      press(event.shiftKey ? "do-redo" : "do-undo");
    }
  });
})();
