// Keys press the answers' buttons, a second press sends nothing, and images grow when pressed.
// Every page works without this.
"use strict";
(() => {
  const form = document.querySelector("form.answers");
  if (!form) return;
  const images = [...document.querySelectorAll(".images img")];
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
    form.classList.add("sent");
  });
  window.addEventListener("pageshow", () => {
    sent = false;
    form.classList.remove("sent");
  });
  const large = document.createElement("dialog");
  const shown = document.createElement("img");
  const shut = document.createElement("button");
  shut.textContent = "Close";
  large.setAttribute("aria-label", "The image, larger");
  large.append(shown, shut);
  document.body.append(large);
  large.addEventListener("click", () => large.close());
  for (const image of images) {
    image.closest("a").addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      shown.src = image.src;
      shown.alt = image.alt;
      large.showModal();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || large.open) return;
    const button = form.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
    // What has not been seen cannot be judged.
    if (button && images.every((image) => image.naturalWidth)) button.click();
  });
})();
