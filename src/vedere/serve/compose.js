// Keys that a writer's hands know: Ctrl/Cmd+Z and Shift+Ctrl/Cmd+Z outside of text fields, Escape closes the panel.
(() => {
  const press = (id) => {
    const button = document.getElementById(id);
    if (button && !button.disabled && button.offsetParent) button.click();
    return Boolean(button);
  };
  // Says whether the text of the selected paragraph was typed in; what was typed is handed over with the next click.
  document.addEventListener("input", (event) => {
    if (event.target.closest("#box-text")) globalThis.vedereTyped = true;
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, [contenteditable]");
    if (event.key === "Escape") press("do-close");
    else if (!typing && (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      press(event.shiftKey ? "do-redo" : "do-undo");
    }
  });
})();
